// How blocks exchange activations: words that tell their turn, and counts that tell when to look.

// A float with the turn as its lowest bit.
__device__ __forceinline__ u32 tagged(float v, u32 turn) { return __float_as_uint(v) & ~1u | turn; }
__device__ __forceinline__ bool fresh(u32 v, u32 turn) { return ((v ^ turn) & 1) == 0; }
__device__ __forceinline__ bool fresh(uint4 v, u32 turn) {
  return (((v.x ^ turn) | (v.y ^ turn) | (v.z ^ turn) | (v.w ^ turn)) & 1) == 0;
}

// Pairs of activations in a word. float16 spares its lowest bit. bfloat16 has none to spare but the highest of its
// exponent, which is zero once all are scaled by 2^-64 (SHRINK).
template <bool HALF>
constexpr u32 TURN_BIT = HALF ? 1u : 0x4000u;
template <bool HALF>
__device__ __forceinline__ u32 tagged(float a, float b, u32 turn) {
  if (!HALF && !(fabsf(a) < 1.9f)) b = __uint_as_float(0x7fffffffu);  // what the bit would hide
  return pack<HALF>(a, b) & ~TURN_BIT<HALF> | turn * TURN_BIT<HALF>;
}
template <bool HALF>
__device__ __forceinline__ bool fresh_pairs(uint4 v, u32 turn) {
  const u32 want = turn * TURN_BIT<HALF>;
  return (((v.x ^ want) | (v.y ^ want) | (v.z ^ want) | (v.w ^ want)) & TURN_BIT<HALF>) == 0;
}

// How many blocks have written a vector: a relaxed count, which overtakes nothing and proves nothing. It says when to
// look. It only grows; `begun` in shared memory has its value when the step began.
enum Hint { AFTER_ATTENTION, AFTER_O, AFTER_UP, AFTER_DOWN, HINTS };
__device__ __forceinline__ u32* hint_count(u32* state, int hint) { return state + 32 * (hint + 1); }
__device__ __forceinline__ void arrive(u32* state, Hint hint, int tid) {
  consumers_sync();
  if (tid == 0) asm volatile("red.relaxed.gpu.global.add.u32 [%0],1;" ::"l"(hint_count(state, hint)) : "memory");
}
__device__ __forceinline__ void await(u32* state, const u32* begun, Hint hint, u32 arrivals, int tid) {
  if (tid == 0)
    while ((int)(ldcg(hint_count(state, hint)) - begun[hint] - arrivals) < 0) {
    }
  consumers_sync();
}
