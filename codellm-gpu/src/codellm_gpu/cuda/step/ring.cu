// The ring of pages in shared memory: the producer warp fills it, the consumer warps empty it.

__device__ __forceinline__ void bar_init(u32 bar, int count) {
  asm volatile("mbarrier.init.shared.b64 [%0],%1;" ::"r"(bar), "r"(count) : "memory");
}
__device__ __forceinline__ void bar_arrive(u32 bar) {
  asm volatile("{.reg .b64 s; mbarrier.arrive.shared.b64 s,[%0];}" ::"r"(bar) : "memory");
}
__device__ __forceinline__ void bar_wait(u32 bar, u32 parity) {
  u32 done;
  do {
#if BULK
    asm volatile("{.reg .pred p; mbarrier.try_wait.parity.shared.b64 p,[%1],%2; selp.u32 %0,1,0,p;}"
                 : "=r"(done)
                 : "r"(bar), "r"(parity)
                 : "memory");
#else
    asm volatile("{.reg .b64 s; .reg .pred p; mbarrier.test_wait.parity.shared.b64 p,[%1],%2; selp.u32 %0,1,0,p;}"
                 : "=r"(done)
                 : "r"(bar), "r"(parity)
                 : "memory");
#endif
  } while (!done);
}

// The producer warp: `pages` pages from `source` on. At most FLIGHT of them are under way: more would only lengthen the
// queue before memory, in which the activations of the other blocks wait too.
__device__ __forceinline__ void produce(const u8* source, int pages, u32 shared, int lane) {
  const u32 full = shared + BARS_AT, empty = full + PAGES * 8;
  u64 policy;
  asm("createpolicy.fractional.L2::evict_first.b64 %0,1.0;" : "=l"(policy));
#if BULK
  if (lane) return;
#endif
  int slot = 0, seen = 0;
  u32 round = 0, seen_round = 0;
  for (int page = 0; page < pages; page++) {
    if (round) bar_wait(empty + slot * 8, (round - 1) & 1);
    if (page >= FLIGHT) {
      bar_wait(full + seen * 8, seen_round & 1);
      if (++seen == PAGES) seen = 0, seen_round++;
    }
    const u32 to = shared + slot * PAGE, bar = full + slot * 8;
#if BULK
    asm volatile("{.reg .b64 s; mbarrier.arrive.expect_tx.shared.b64 s,[%0],%1;}" ::"r"(bar), "r"(PAGE) : "memory");
    asm volatile(
        "cp.async.bulk.shared::cluster.global.mbarrier::complete_tx::bytes.L2::cache_hint [%0],[%1],%2,[%3],%4;" ::"r"(
            to),
        "l"(source), "r"(PAGE), "r"(bar), "l"(policy)
        : "memory");
#else
#pragma unroll 8
    for (int at = lane * 16; at < PAGE; at += 512)
      asm volatile("cp.async.cg.shared.global.L2::cache_hint [%0],[%1],16,%2;" ::"r"(to + at), "l"(source + at),
                   "l"(policy)
                   : "memory");
    asm volatile("cp.async.mbarrier.arrive.noinc.shared.b64 [%0];" ::"r"(bar) : "memory");
#endif
    source += PAGE;
    if (++slot == PAGES) slot = 0, round++;
  }
#if !BULK
  asm volatile("cp.async.wait_all;" ::: "memory");
#endif
}

struct Reader {  // a consumer warp's way through the ring
  u32 shared;
  int slot;
  u32 parity;
  int next;  // its next group, counted from where the current product begins
};
