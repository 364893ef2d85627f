    import asyncio
    async def later(): await asyncio.sleep(0.01); return a + b
    return asyncio.run(later())
