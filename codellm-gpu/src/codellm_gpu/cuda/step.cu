// One decoding step of one sequence as one persistent kernel: a block per multiprocessor, all layers, no launch between.
//
// Weights lie in the order in which each block reads them (tape.py). A producer warp copies them, page after page,
// into a ring in shared memory and never stops at a barrier of the grid, so that memory works on while activations are
// exchanged. W consumer warps multiply: group i of a block's tape belongs to warp i mod W, a page holds one group of
// each warp. What a page's scales and every vector are is said in tape.py; the sizes below are macros of kernel.py.
//
// A matrix product takes the tensor cores' m16n8k16 with weights as A and activations as B. A tile has 8 rows of the
// matrix: the upper and lower 8 rows of A are two halves of k, which columns 0 and 1 of B take, and c0 + c3 is the sum.
//
// Blocks exchange activations without a barrier or a fence: each 32-bit word carries a bit that says in which turn it was
// written (the lowest of a float; see `Exchange`), and who reads it looks again until all bits are of this turn. A word
// is written again only by a block that has seen what every reader made of it: each block has tiles of qkv and of the up
// projection, and each of those needs all that came before. No float is added atomically, so a step repeats to the bit.

typedef unsigned char u8;
typedef unsigned short u16;
typedef unsigned u32;
typedef unsigned long long u64;

constexpr int T = W * 32;                      // consumer threads
constexpr int GQ = NH / KV;                    // query heads of a key-value head
constexpr int QKV = (NH + 2 * KV) * D;
constexpr int UP = GATED ? 2 * FF : FF;
constexpr int G = 4;                           // chunks of a group
constexpr bool QUANTIZED = LAYER_BITS != 16;
// What o_proj and down take is exchanged in another scale: float16 has less range than the bfloat16 of a model that is
// quantized, and plain bfloat16 gives the highest bit of its exponent (see `tagged`).
constexpr float SHRINK = FP16 ? 1.f : QUANTIZED ? 1.f / 16 : 5.421010862427522e-20f;
constexpr int NWAYS = (H / 4 + T - 1) / T;     // float4s of the residual stream a thread holds

template <int BITS> struct Chunk {             // 512 bytes: 8 rows by SIZE columns
  static constexpr int SIZE = 512 / BITS;      // 32, 64, 128
  static constexpr bool HALF = BITS != 16 || FP16;   // activations are float16, else bfloat16
};
template <int BITS, int K> struct Groups {     // of a row of K columns, padded
  static constexpr int PER_TILE = (K + G * Chunk<BITS>::SIZE - 1) / (G * Chunk<BITS>::SIZE);
  static constexpr int PADDED = PER_TILE * G * Chunk<BITS>::SIZE;
};
__host__ __device__ constexpr int cmax(int a, int b) { return a > b ? a : b; }
constexpr int FIRST = (FF / 128 + 1) / 2 * 128;  // columns of the first half of the down projection
constexpr int KMAX = cmax(cmax(Groups<LAYER_BITS, H>::PADDED, Groups<LAYER_BITS, FIRST>::PADDED),
                          cmax(Groups<LAYER_BITS, NH * D>::PADDED, Groups<HEAD_BITS, H>::PADDED));
constexpr int GROUP_BYTES = G * 512 + (LAYER_BITS == 4 ? 64 + (ZEROS ? 32 : 0) : 0);
constexpr int PAGE = W * GROUP_BYTES;

// Shared memory: ring | activations, or what attention merges | offsets | partial sums | scratch | mbarriers
constexpr int HALVES = D / 64, UNITS = W / HALVES;
constexpr int X_BYTES = cmax(KMAX * 2, UNITS * GQ * (D + 2) * 4);
constexpr int X_AT = PAGES * PAGE;
constexpr int Z_AT = X_AT + (X_BYTES + 15) / 16 * 16;
constexpr int RED_AT = Z_AT + (QUANTIZED || HEAD_BITS != 16 ? (KMAX / 64) * 4 : 16);
constexpr int ROPE_AT = RED_AT + TILES * W * 8 * 4;
constexpr int QUERY_AT = ROPE_AT + D * 4;
constexpr int TMP_AT = QUERY_AT + 18 * D * 2;   // 16 query heads, then the newest key and value
constexpr int BARS_AT = TMP_AT + 128 * 4;

// ---- instructions -----------------------------------------------------------------------------------------------

// What other blocks write is read past the first-level cache.
__device__ __forceinline__ u32 ldcg(const void* p) {
  u32 v;
  asm volatile("ld.relaxed.gpu.global.u32 %0,[%1];" : "=r"(v) : "l"(p) : "memory");
  return v;
}
__device__ __forceinline__ uint4 ldcg4(const void* p) {
  uint4 v;
  asm volatile("ld.relaxed.gpu.global.v4.u32 {%0,%1,%2,%3},[%4];" : "=r"(v.x), "=r"(v.y), "=r"(v.z), "=r"(v.w) : "l"(p) : "memory");
  return v;
}
__device__ __forceinline__ void stcg(void* p, u32 v) { asm volatile("st.relaxed.gpu.global.u32 [%0],%1;" ::"l"(p), "r"(v) : "memory"); }
__device__ __forceinline__ u32 acquire(const u32* p) {
  u32 v;
  asm volatile("ld.acquire.gpu.global.u32 %0,[%1];" : "=r"(v) : "l"(p) : "memory");
  return v;
}
__device__ __forceinline__ void add_release(u32* p) {
  asm volatile("red.release.gpu.global.add.u32 [%0],1;" ::"l"(p) : "memory");
}
__device__ __forceinline__ void consumers_sync() { asm volatile("bar.sync 1,%0;" ::"n"(T) : "memory"); }

template <bool HALF> __device__ __forceinline__ u32 pack(float lo, float hi) {
  u32 d;
  if (HALF) asm("cvt.rn.f16x2.f32 %0,%1,%2;" : "=r"(d) : "f"(hi), "f"(lo));
  else asm("cvt.rn.bf16x2.f32 %0,%1,%2;" : "=r"(d) : "f"(hi), "f"(lo));
  return d;
}
template <bool HALF> __device__ __forceinline__ float low(u32 u) {
  if (!HALF) return __uint_as_float(u << 16);
  float f;
  asm("{.reg .b16 a,b; mov.b32 {a,b},%1; cvt.f32.f16 %0,a;}" : "=f"(f) : "r"(u));
  return f;
}
template <bool HALF> __device__ __forceinline__ float high(u32 u) {
  if (!HALF) return __uint_as_float(u & 0xffff0000u);
  float f;
  asm("{.reg .b16 a,b; mov.b32 {a,b},%1; cvt.f32.f16 %0,b;}" : "=f"(f) : "r"(u));
  return f;
}
template <bool HALF>
__device__ __forceinline__ void mma(float (&c)[4], u32 a0, u32 a1, u32 a2, u32 a3, u32 b0, u32 b1) {
  if (HALF)
    asm("mma.sync.aligned.m16n8k16.row.col.f32.f16.f16.f32 {%0,%1,%2,%3},{%4,%5,%6,%7},{%8,%9},{%0,%1,%2,%3};"
                 : "+f"(c[0]), "+f"(c[1]), "+f"(c[2]), "+f"(c[3])
                 : "r"(a0), "r"(a1), "r"(a2), "r"(a3), "r"(b0), "r"(b1));
  else
    asm("mma.sync.aligned.m16n8k16.row.col.f32.bf16.bf16.f32 {%0,%1,%2,%3},{%4,%5,%6,%7},{%8,%9},{%0,%1,%2,%3};"
                 : "+f"(c[0]), "+f"(c[1]), "+f"(c[2]), "+f"(c[3])
                 : "r"(a0), "r"(a1), "r"(a2), "r"(a3), "r"(b0), "r"(b1));
}

// ---- exchange -----------------------------------------------------------------------------------------------------

// A float with the turn as its lowest bit.
__device__ __forceinline__ u32 tagged(float v, u32 turn) { return __float_as_uint(v) & ~1u | turn; }
__device__ __forceinline__ bool fresh(u32 v, u32 turn) { return ((v ^ turn) & 1) == 0; }
__device__ __forceinline__ bool fresh(uint4 v, u32 turn) { return (((v.x ^ turn) | (v.y ^ turn) | (v.z ^ turn) | (v.w ^ turn)) & 1) == 0; }

// Pairs of activations in a word. float16 spares its lowest bit. bfloat16 has none to spare but the highest of its
// exponent, which is zero once all are scaled by 2^-64 (SHRINK).
template <bool HALF> constexpr u32 TURN_BIT = HALF ? 1u : 0x4000u;
template <bool HALF> __device__ __forceinline__ u32 tagged(float a, float b, u32 turn) {
  if (!HALF && !(fabsf(a) < 1.9f)) b = __uint_as_float(0x7fffffffu);   // what the bit would hide
  return pack<HALF>(a, b) & ~TURN_BIT<HALF> | turn * TURN_BIT<HALF>;
}
template <bool HALF> __device__ __forceinline__ bool fresh_pairs(uint4 v, u32 turn) {
  const u32 want = turn * TURN_BIT<HALF>;
  return (((v.x ^ want) | (v.y ^ want) | (v.z ^ want) | (v.w ^ want)) & TURN_BIT<HALF>) == 0;
}

// How many blocks have written a vector: a relaxed count, which overtakes nothing and proves nothing. It says when to look.
// It only grows; `begun` in shared memory has its value when the step began.
enum Hint { AFTER_ATTENTION, AFTER_O, AFTER_UP, AFTER_DOWN, HINTS };
__device__ __forceinline__ u32* hint_count(u32* state, int hint) { return state + 32 * (hint + 1); }
__device__ __forceinline__ void arrive(u32* state, Hint hint, int tid) {
  consumers_sync();
  if (tid == 0) asm volatile("red.relaxed.gpu.global.add.u32 [%0],1;" ::"l"(hint_count(state, hint)) : "memory");
}
__device__ __forceinline__ void await(u32* state, const u32* begun, Hint hint, u32 arrivals, int tid) {
  if (tid == 0)
    while ((int)(ldcg(hint_count(state, hint)) - begun[hint] - arrivals) < 0) {}
  consumers_sync();
}

// ---- the ring of pages --------------------------------------------------------------------------------------------

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
                 : "=r"(done) : "r"(bar), "r"(parity) : "memory");
#else
    asm volatile("{.reg .b64 s; .reg .pred p; mbarrier.test_wait.parity.shared.b64 p,[%1],%2; selp.u32 %0,1,0,p;}"
                 : "=r"(done) : "r"(bar), "r"(parity) : "memory");
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
    asm volatile("cp.async.bulk.shared::cluster.global.mbarrier::complete_tx::bytes.L2::cache_hint [%0],[%1],%2,[%3],%4;"
                 ::"r"(to), "l"(source), "r"(PAGE), "r"(bar), "l"(policy) : "memory");
#else
#pragma unroll 8
    for (int at = lane * 16; at < PAGE; at += 512)
      asm volatile("cp.async.cg.shared.global.L2::cache_hint [%0],[%1],16,%2;" ::"r"(to + at), "l"(source + at), "l"(policy) : "memory");
    asm volatile("cp.async.mbarrier.arrive.noinc.shared.b64 [%0];" ::"r"(bar) : "memory");
#endif
    source += PAGE;
    if (++slot == PAGES) slot = 0, round++;
  }
#if !BULK
  asm volatile("cp.async.wait_all;" ::: "memory");
#endif
}

struct Reader {      // a consumer warp's way through the ring
  u32 shared;
  int slot;
  u32 parity;
  int next;          // its next group, counted from where the current product begins
};

// ---- products -----------------------------------------------------------------------------------------------------

// Where element k of a vector of activations lies, so that a lane's elements of a chunk come in 16 bytes.
template <int BITS> __device__ __forceinline__ int place(int k) {
  if (BITS == 8) return (k & ~15) | (k & 4) << 1 | (k & 8) >> 1 | (k & 3);
  if (BITS == 4)
    return (k & ~127) | (k & 16) << 2 | (k & 96) >> 1 | (k & 4) << 1 | (k & 8) >> 1 | (k & 3);
  return k;
}
// Four elements from k on, a multiple of 4, as they are stored: high nibbles stay in place, times 16, so their x is / 16.
template <int BITS> __device__ __forceinline__ uint2 four(float a, float b, float c, float d) {
  constexpr bool HALF = Chunk<BITS>::HALF;
  const float s = BITS == 4 ? 0.0625f : 1.f;
  return make_uint2(pack<HALF>(a, b), pack<HALF>(c * s, d * s));
}

__device__ __forceinline__ u32 nibbles(u32 u, u32 mask) {   // 1024 + nibble, or 1024 + 16 * nibble, twice
  u32 t;
  asm("lop3.b32 %0,%1,%2,%3,0xEA;" : "=r"(t) : "r"(u), "r"(mask), "r"(0x64006400u));
  return t;
}

__device__ __forceinline__ uint4 read128(const char* p) { return *(const uint4*)p; }
__device__ __forceinline__ uint2 read64(const char* p) { return *(const uint2*)p; }
// Activations are read by the 8 lanes of B's columns 0 and 1 alone: what others have is multiplied into columns that nobody
// looks at, and shared memory would hand 512 bytes to a warp where these are 128.
__device__ __forceinline__ void few128(uint4& v, u32 at, u32 mine) {
  asm volatile("{.reg .pred p; setp.ne.u32 p,%5,0; @p ld.shared.v4.u32 {%0,%1,%2,%3},[%4];}"
               : "+r"(v.x), "+r"(v.y), "+r"(v.z), "+r"(v.w) : "r"(at), "r"(mine) : "memory");
}
__device__ __forceinline__ void few64(uint4& v, u32 at, u32 mine) {
  asm volatile("{.reg .pred p; setp.ne.u32 p,%3,0; @p ld.shared.v2.u32 {%0,%1},[%2];}" : "+r"(v.x), "+r"(v.y) : "r"(at), "r"(mine) : "memory");
}

// One group of a tile: `at` is its place in the ring, `x` the lane's activations, `z` the offsets of its chunks. All is
// read before it is multiplied, and chunks take turns, so that no product waits for the one before it.
template <int BITS>
__device__ __forceinline__ void multiply(float (&c)[2][4], uint4 (&b)[G], float& sum, const char* at, u32 x, const char* all, const float* z, int lane) {
  constexpr bool HALF = Chunk<BITS>::HALF;
  constexpr int STRIDE = Chunk<BITS>::SIZE * 2;
  const u32 mine = lane < 8;
  uint4 w[G];
#pragma unroll
  for (int j = 0; j < G; j++) w[j] = read128(at + j * 512 + lane * 16);
  if (BITS == 16) {
#pragma unroll
    for (int j = 0; j < G; j++) few64(b[j], x + j * STRIDE, mine);
#pragma unroll
    for (int j = 0; j < G; j++) mma<HALF>(c[j & 1], w[j].x, w[j].z, w[j].y, w[j].w, b[j].x, b[j].y);
  }
  if (BITS == 8) {
    const float4 offsets = *(const float4*)z;
#pragma unroll
    for (int j = 0; j < G; j++) few128(b[j], x + j * STRIDE, mine);
    float e[G][4] = {};
    const u32 magic = 0x64646464u;                           // 1024 + byte, as float16
#pragma unroll
    for (int j = 0; j < G; j++)
      mma<HALF>(e[j], __byte_perm(w[j].x, magic, 0x4140), __byte_perm(w[j].y, magic, 0x4140),
                __byte_perm(w[j].x, magic, 0x4342), __byte_perm(w[j].y, magic, 0x4342), b[j].x, b[j].y);
#pragma unroll
    for (int j = 0; j < G; j++)
      mma<HALF>(e[j], __byte_perm(w[j].z, magic, 0x4140), __byte_perm(w[j].w, magic, 0x4140),
                __byte_perm(w[j].z, magic, 0x4342), __byte_perm(w[j].w, magic, 0x4342), b[j].z, b[j].w);
    sum += ((e[0][0] + e[0][3] - offsets.x) + (e[1][0] + e[1][3] - offsets.y)) +
           ((e[2][0] + e[2][3] - offsets.z) + (e[3][0] + e[3][3] - offsets.w));
  }
  if (BITS == 4) {
    const uint2 scales = read64(at + G * 512 + (lane >> 2) * 8);
    const float4 offsets = *(const float4*)z;
    float4 plain = make_float4(0, 0, 0, 0);
    u32 zeros = 0x08080808u;
    if (ZEROS) zeros = *(const u32*)(at + G * 512 + 64 + (lane >> 2) * 4), plain = *(const float4*)(z + KMAX / 128);
    float e[G][4] = {};
#pragma unroll
    for (int half = 0; half < 2; half++) {                    // here all lanes read: more instructions would cost more
      uint4 a[G];
#pragma unroll
      for (int j = 0; j < G; j++) a[j] = read128(all + j * STRIDE + half * 128);
#pragma unroll
      for (int i = 0; i < 2; i++)
#pragma unroll
        for (int j = 0; j < G; j++) {
          const u32 u = half ? (i ? w[j].w : w[j].z) : (i ? w[j].y : w[j].x), v = u >> 8;
          mma<HALF>(e[j], nibbles(u, 0x000f000fu), nibbles(v, 0x000f000fu), nibbles(u, 0x00f000f0u), nibbles(v, 0x00f000f0u),
                    i ? a[j].z : a[j].x, i ? a[j].w : a[j].y);
        }
    }
    const float scale[G] = {low<SCALE_FP16>(scales.x), high<SCALE_FP16>(scales.x), low<SCALE_FP16>(scales.y), high<SCALE_FP16>(scales.y)};
    const float offset[G] = {offsets.x, offsets.y, offsets.z, offsets.w}, sums[G] = {plain.x, plain.y, plain.z, plain.w};
#pragma unroll
    for (int j = 0; j < G; j++) {
      float value = e[j][0] + e[j][3] - offset[j];
      if (ZEROS) value -= sums[j] * ((float)(zeros >> 8 * j & 255) - 8.f);
      sum += value * scale[j];
    }
  }
}

// All tiles that this block has of a product, `tiles` of them here: warp w's partial sums go to red[tile][w][8].
template <int BITS, int K>
__device__ __forceinline__ void product(Reader& r, char* shared, int tiles, float* red, int warp, int lane) {
  constexpr int PER = Groups<BITS, K>::PER_TILE;
  const int count = tiles * PER, half = lane >> 2 & 1;
  const u32 x = r.shared + X_AT + (lane & 3) * (BITS == 16 ? 16 : 32) + half * (BITS == 16 ? 8 : 16);
  const u32 full = r.shared + BARS_AT, empty = full + PAGES * 8;
  const float* z = (const float*)(shared + Z_AT);
  float c[2][4] = {};
  uint4 b[G] = {};
  float sum = 0;
  int tile = 0, group = r.next;
  auto flush = [&]() {
    if (BITS == 16) sum = (c[0][0] + c[0][3]) + (c[1][0] + c[1][3]);
    if ((lane & 3) == 0) red[(tile * W + warp) * 8 + (lane >> 2)] = sum;
    sum = 0;
    if (BITS == 16)
#pragma unroll
      for (int i = 0; i < 8; i++) c[i >> 2][i & 3] = 0;
    tile++;
  };
  int i = r.next;
#pragma unroll 1
  for (; i < count; i += W, group += W) {
    while (group >= PER) group -= PER, flush();
    bar_wait(full + r.slot * 8, r.parity);
    multiply<BITS>(c, b, sum, shared + r.slot * PAGE + warp * GROUP_BYTES, x + group * (G * Chunk<BITS>::SIZE * 2), shared + (x - r.shared) + group * (G * Chunk<BITS>::SIZE * 2), z + group * G, lane);
    __syncwarp();
    if (lane == 0) bar_arrive(empty + r.slot * 8);
    if (++r.slot == PAGES) r.slot = 0, r.parity ^= 1;
  }
  while (tile < tiles) flush();
  r.next = i - count;
}

// The offsets of chunks, whose activations lie over LANES lanes: nibbles and bytes stand for 1024 more, 64 more in the high
// nibble, and for their zero. `first` is a lane's sum of what low nibbles take, `second` of what high ones do.
template <int BITS, int LANES> __device__ __forceinline__ void offset(float* z, int chunk, float first, float second, int lane, bool there) {
  float v = BITS == 8 ? 1152.f * (first + second) : 1032.f * first + 1152.f * second, plain = first + 16.f * second;
#pragma unroll
  for (int o = LANES / 2; o; o >>= 1) {
    v += __shfl_xor_sync(~0u, v, o);
    if (ZEROS) plain += __shfl_xor_sync(~0u, plain, o);
  }
  if (there && lane % LANES == 0) {
    z[chunk] = v;
    if (ZEROS && BITS == 4) z[KMAX / 128 + chunk] = plain;
  }
}

__device__ __forceinline__ float summed(const float* red, int tile, int row) {
  float s = 0;
#pragma unroll
  for (int w = 0; w < W; w++) s += red[(tile * W + w) * 8 + row];
  return s;
}

struct Place {       // a thread's row of a product
  bool own;
  int row;           // in the order of the tape
  float bias, scale, before;
};

struct Block {
  int index, blocks, tid, warp, lane;
  int turn;          // tiles dealt so far: no product begins again at block 0, so uneven counts cancel
  const float* vectors;
  char* shared;
  __device__ __forceinline__ int first() const { return (index - turn % blocks + blocks) % blocks; }
  __device__ __forceinline__ bool has(int tiles) const { return first() < tiles; }   // any of so many tiles
};

// One product: rows/8 tiles are dealt to the blocks, of two halves of the columns each where it is SPLIT, one half to the
// even blocks. `before(row)` is read ahead, `after(place, value, gate)` takes the sum; the first half has the bias. The
// tile of a gated product has four rows of the gate, then the same four of the other part.
template <int BITS, int K, bool PAIRED, bool BIASED, bool SHRUNK, int SPLIT, class Before, class After>
__device__ __forceinline__ void rows(Block& b, Reader& r, int count, Before before, After after) {
  constexpr int ROWS = PAIRED ? 4 : 8;
  float* red = (float*)(b.shared + RED_AT);
  const int first = b.first(), all = count / 8 * SPLIT;
  const int mine = first < all ? (all - first + b.blocks - 1) / b.blocks : 0;
  const float *bias = b.vectors, *scale = bias + (BIASED ? count : 0);
#pragma unroll 1
  for (int done = 0; done < mine || done == 0; done += TILES) {
    const int tiles = mine - done < TILES ? mine - done : TILES, tile = b.tid / ROWS;
    Place p;
    p.own = tile < tiles;
    p.row = (first + (done + tile) * b.blocks) / SPLIT * 8 + b.tid % ROWS;
    p.bias = 0, p.scale = 1, p.before = 0;
    float bias2 = 0, scale2 = 1;
    if (p.own) {
      p.before = before(p.row);
      if (BIASED && first % SPLIT == 0) p.bias = __ldg(bias + p.row), bias2 = PAIRED ? __ldg(bias + p.row + 4) : 0;
      if (BITS == 8) p.scale = __ldg(scale + p.row), scale2 = PAIRED ? __ldg(scale + p.row + 4) : 1;
    }
    product<BITS, K>(r, b.shared, tiles, red, b.warp, b.lane);
    consumers_sync();
    if (p.own) {
      const float value = summed(red, tile, b.tid % ROWS) * (SHRUNK ? p.scale * (1.f / SHRINK) : p.scale) + p.bias;
      after(p, value, PAIRED ? summed(red, tile, b.tid % ROWS + 4) * scale2 + bias2 : 0.f);
    }
    if (done + TILES < mine) consumers_sync();
  }
  b.turn += all;
  b.vectors += (BIASED ? count : 0) + (BITS == 8 ? count : 0);
}

// ---- norms --------------------------------------------------------------------------------------------------------

struct Gain {        // a thread's part of a norm's weight and bias, read before it is needed
  uint2 weight[NWAYS], bias[NWAYS];
};
__device__ __forceinline__ void read_gain(Gain& g, const u16* norm, int tid) {
#pragma unroll
  for (int i = 0; i < NWAYS; i++) {
    const int k = (i * T + tid) * 4;
    if (k < H) {
      g.weight[i] = __ldg((const uint2*)(norm + k));
      if (!RMS) g.bias[i] = __ldg((const uint2*)(norm + H + k));
    }
  }
}
// A thread's part of the residual stream, once all of it is of this turn: `second` is added where it has two parts. What was
// not there yet is read again, and nothing else.
__device__ __forceinline__ void read_stream(Block& b, float4 (&v)[NWAYS], const float* stream, const float* second, u32 turn) {
  uint4 u[NWAYS], w[NWAYS];
  u32 missing = 0;
  auto there = [&](int i) { return (i * T + b.tid) * 4 < H; };
#pragma unroll
  for (int i = 0; i < NWAYS; i++) {                           // all at once
    u[i] = there(i) ? ldcg4(stream + (i * T + b.tid) * 4) : make_uint4(turn, turn, turn, turn);
    w[i] = there(i) && second ? ldcg4(second + (i * T + b.tid) * 4) : make_uint4(0, 0, 0, 0);
  }
#pragma unroll
  for (int i = 0; i < NWAYS; i++) missing |= (u32)(there(i) && !(fresh(u[i], turn) && (!second || fresh(w[i], turn)))) << i;
  while (__any_sync(~0u, missing)) {
#pragma unroll
    for (int i = 0; i < NWAYS; i++)
      if (missing >> i & 1) {
        u[i] = ldcg4(stream + (i * T + b.tid) * 4);
        if (second) w[i] = ldcg4(second + (i * T + b.tid) * 4);
        if (fresh(u[i], turn) && (!second || fresh(w[i], turn))) missing &= ~(1u << i);
      }
  }
#pragma unroll
  for (int i = 0; i < NWAYS; i++)
    if (there(i))
      v[i] = make_float4(__uint_as_float(u[i].x) + __uint_as_float(w[i].x), __uint_as_float(u[i].y) + __uint_as_float(w[i].y),
                         __uint_as_float(u[i].z) + __uint_as_float(w[i].z), __uint_as_float(u[i].w) + __uint_as_float(w[i].w));
}
// The normed residual stream → activations in shared memory. `read` fills a thread's part of the stream.
template <int BITS, class Read> __device__ __forceinline__ void norm(Block& b, const Gain& g, Read read) {
  float* tmp = (float*)(b.shared + TMP_AT);
  u16* x = (u16*)(b.shared + X_AT);
  float4 v[NWAYS];
  float s = 0, squares = 0;
#pragma unroll
  for (int i = 0; i < NWAYS; i++) v[i] = make_float4(0, 0, 0, 0);
  read(v);
#pragma unroll
  for (int i = 0; i < NWAYS; i++) {
    s += (v[i].x + v[i].y) + (v[i].z + v[i].w);
    squares += (v[i].x * v[i].x + v[i].y * v[i].y) + (v[i].z * v[i].z + v[i].w * v[i].w);
  }
#pragma unroll
  for (int o = 16; o; o >>= 1) {
    s += __shfl_xor_sync(~0u, s, o);
    squares += __shfl_xor_sync(~0u, squares, o);
  }
  if (b.lane == 0) tmp[b.warp] = s, tmp[32 + b.warp] = squares;
  consumers_sync();
  s = squares = 0;
#pragma unroll
  for (int i = 0; i < W; i++) s += tmp[i], squares += tmp[32 + i];
  const float mean = RMS ? 0.f : s / H, rate = rsqrtf(squares / H - mean * mean + EPSILON);
  float* z = (float*)(b.shared + Z_AT);
  constexpr int SIZE = Chunk<BITS>::SIZE;
#pragma unroll
  for (int i = 0; i < NWAYS; i++) {
    const int k = (i * T + b.tid) * 4;
    uint2 y = make_uint2(0, 0);
    if (k < H) {
      float n[4] = {(v[i].x - mean) * rate, (v[i].y - mean) * rate, (v[i].z - mean) * rate, (v[i].w - mean) * rate};
      n[0] *= low<FP16>(g.weight[i].x), n[1] *= high<FP16>(g.weight[i].x), n[2] *= low<FP16>(g.weight[i].y), n[3] *= high<FP16>(g.weight[i].y);
      if (!RMS)
        n[0] += low<FP16>(g.bias[i].x), n[1] += high<FP16>(g.bias[i].x), n[2] += low<FP16>(g.bias[i].y), n[3] += high<FP16>(g.bias[i].y);
      y = four<BITS>(n[0], n[1], n[2], n[3]);
      *(uint2*)(x + place<BITS>(k)) = y;
    }
    if (BITS != 16) offset<BITS, SIZE / 4>(z, k / SIZE, low<true>(y.x) + high<true>(y.x), low<true>(y.y) + high<true>(y.y), b.lane, k < H);
  }
  for (int k = H + b.tid * 4; k < Groups<BITS, H>::PADDED; k += T * 4) {
    *(uint2*)(x + place<BITS>(k)) = make_uint2(0, 0);
    if (BITS != 16 && k % SIZE == 0) z[k / SIZE] = 0, z[ZEROS && BITS == 4 ? KMAX / 128 + k / SIZE : k / SIZE] = 0;
  }
  consumers_sync();
}
// Activations that other blocks computed → shared memory, once all are of this turn.
template <int BITS, int K> __device__ __forceinline__ void fetch(Block& b, const u16* from, int columns, u32 turn) {
  constexpr bool HALF = Chunk<BITS>::HALF;
  constexpr int ALL = Groups<BITS, K>::PADDED / 8, WAYS = (ALL + T - 1) / T, LANES = Chunk<BITS>::SIZE / 8;
  char* x = b.shared + X_AT;
  float* z = (float*)(b.shared + Z_AT);
  uint4 v[WAYS];
  u32 missing = 0;
  auto there = [&](int n) { return (n * T + b.tid) * 8 < columns; };
#pragma unroll
  for (int n = 0; n < WAYS; n++) v[n] = there(n) ? ldcg4(from + (n * T + b.tid) * 8) : make_uint4(0, 0, 0, 0);
#pragma unroll
  for (int n = 0; n < WAYS; n++) missing |= (u32)(there(n) && !fresh_pairs<HALF>(v[n], turn)) << n;
  while (__any_sync(~0u, missing)) {
#pragma unroll
    for (int n = 0; n < WAYS; n++)
      if (missing >> n & 1) {
        v[n] = ldcg4(from + (n * T + b.tid) * 8);
        if (fresh_pairs<HALF>(v[n], turn)) missing &= ~(1u << n);
      }
  }
  consumers_sync();                                           // nobody reads what was there
#pragma unroll
  for (int n = 0; n < WAYS; n++) {
    const int i = n * T + b.tid;
    if (!HALF) v[n].x &= ~TURN_BIT<HALF>, v[n].y &= ~TURN_BIT<HALF>, v[n].z &= ~TURN_BIT<HALF>, v[n].w &= ~TURN_BIT<HALF>;
    if (i < ALL) *(uint4*)(x + i * 16) = v[n];
    if (BITS != 16)                                           // in 16 bytes are two fours of elements, as `four` stores them
      offset<BITS, LANES>(z, i / LANES, (low<true>(v[n].x) + high<true>(v[n].x)) + (low<true>(v[n].z) + high<true>(v[n].z)),
                          (low<true>(v[n].y) + high<true>(v[n].y)) + (low<true>(v[n].w) + high<true>(v[n].w)), b.lane, i < ALL);
  }
  consumers_sync();
}
// An element of the activations that others will fetch: of two neighbours, the even one writes both.
template <int BITS> __device__ __forceinline__ void put(u16* to, int k, float v, u32 turn, int lane) {
  v *= BITS == 4 && (k & 2) ? SHRINK * 0.0625f : SHRINK;
  if (Chunk<BITS>::HALF) v = v > 65504.f ? 65504.f : v < -65504.f ? -65504.f : v;   // which leaves NaN what it is
  const float next = __shfl_down_sync(3u << (lane & 30), v, 1);
  if (!(k & 1)) stcg(to + place<BITS>(k), tagged<Chunk<BITS>::HALF>(v, next, turn));
}

// ---- attention ----------------------------------------------------------------------------------------------------

__device__ __forceinline__ void read_head(float (&v)[D / 32], const float* from, u32 turn, int lane) {
  bool all;
  do {
    all = true;
#pragma unroll
    for (int i = 0; i < D / 32; i++) {
      const u32 u = ldcg(from + lane + 32 * i);
      all &= fresh(u, turn), v[i] = __uint_as_float(u);
    }
  } while (!__all_sync(~0u, all));
}
// A head of q or k, D values over a warp's lanes: normed where the model norms them, rotated, rounded.
template <class Put>
__device__ __forceinline__ void head(const float* from, u32 turn, const u16* weight, const float* rope, int lane, Put put) {
  constexpr int N = D / 32;
  float v[N];
  read_head(v, from, turn, lane);
  if (QK_NORM) {
    float s = 0;
#pragma unroll
    for (int i = 0; i < N; i++) s += v[i] * v[i];
#pragma unroll
    for (int o = 16; o; o >>= 1) s += __shfl_xor_sync(~0u, s, o);
    const float rate = rsqrtf(s / D + EPSILON);
#pragma unroll
    for (int i = 0; i < N; i++) v[i] *= rate * low<FP16>(weight[lane + 32 * i]);
  }
#pragma unroll
  for (int i = 0; i < N / 2; i++) {
    const float cos = rope[lane + 32 * i], sin = rope[D / 2 + lane + 32 * i];
    put(lane + 32 * i, (u16)pack<FP16>(v[i] * cos - v[i + N / 2] * sin, 0.f));
    put(lane + 32 * i + D / 2, (u16)pack<FP16>(v[i + N / 2] * cos + v[i] * sin, 0.f));
  }
}

// Keys and values of 16 cells, as a warp multiplies them: read as they lie, since any order of a head's dimensions will do
// for q·k as long as both have it, and any of the cells for p·v.
struct Cells {
  uint4 k[2][D / 32], v[4];
};
struct Attention {   // of a block: the cells from `begin` to `end` of those that the token attends to
  const u16 *keys, *values;
  u32 start, ring;
  int kv, begin, end, tiles, units;
  bool newest;       // whether the last of them is the token's own, which is not in the cache yet
  __device__ __forceinline__ u64 cell(int i) const {         // of the i-th token attended to, as an offset
    u32 t = start + (i < end ? i : end - 1);
    if (t >= ring) t %= ring;
    return (u64)t * (KV * D) + kv * D;
  }
  __device__ __forceinline__ void read_keys(Cells& c, int tile, int lane) const {
#pragma unroll
    for (int n = 0; n < 2; n++) {
      const u16* p = keys + cell(begin + tile * 16 + n * 8 + (lane >> 2)) + (lane & 3) * 8;
#pragma unroll
      for (int j = 0; j < D / 32; j++) c.k[n][j] = ldcg4(p + 32 * j);
    }
  }
  __device__ __forceinline__ void read_values(Cells& c, int tile, int half, int lane) const {
#pragma unroll
    for (int n = 0; n < 4; n++)
      c.v[n] = ldcg4(values + cell(begin + tile * 16 + 2 * (lane & 3) + (n & 1) + (n & 2) * 4) + half * 64 + (lane >> 2) * 8);
  }
};

// Attention of the GQ query heads of a key-value head to a block's cells. Heads are rows of the tensor cores' A. A unit
// of warps takes 16 cells at a time, the first of them read before, and each warp of it 64 of the D dimensions of the
// values. Hands on `out(head, dim, value, largest, sum)`: value and sum in units of 2^largest.
template <class Out> __device__ __forceinline__ void attend(Block& b, const Attention& at, Cells& cells, Out out) {
  constexpr int ROWS = GQ > 8 ? 2 : 1;                        // of 8 heads
  const int lane = b.lane, g = lane >> 2, q = lane & 3, unit = b.warp / HALVES, half = b.warp % HALVES;
  const u16 *query = (const u16*)(b.shared + QUERY_AT), *newest = query + 16 * D;
  float* merge = (float*)(b.shared + X_AT);
  if (unit < at.units) {
    float o[8][4] = {};
    float most[2] = {-1e30f, -1e30f}, total[2] = {0, 0};
    const float scale = 1.44269504f * rsqrtf((float)D);
#pragma unroll 1
    for (int tile = unit; tile < at.tiles; tile += at.units) {
      const int base = at.begin + tile * 16;
      if (at.newest && tile == at.tiles - 1) {
        const int own = at.end - 1 - base;                    // its place among the 16
#pragma unroll
        for (int n = 0; n < 2; n++)
          if (n * 8 + g >= own)
#pragma unroll
            for (int j = 0; j < D / 32; j++) cells.k[n][j] = *(const uint4*)(newest + 32 * j + q * 8);
#pragma unroll
        for (int n = 0; n < 4; n++)
          if (2 * q + (n & 1) + (n & 2) * 4 >= own) cells.v[n] = *(const uint4*)(newest + D + half * 64 + g * 8);
      }
      float s[2][4] = {};
#pragma unroll
      for (int j = 0; j < D / 32; j++) {
        const uint4 a = *(const uint4*)(query + g * D + 32 * j + q * 8);
        const uint4 c = ROWS == 2 ? *(const uint4*)(query + (g + 8) * D + 32 * j + q * 8) : make_uint4(0, 0, 0, 0);
#pragma unroll
        for (int n = 0; n < 2; n++) {
          mma<FP16>(s[n], a.x, c.x, a.y, c.y, cells.k[n][j].x, cells.k[n][j].y);
          mma<FP16>(s[n], a.z, c.z, a.w, c.w, cells.k[n][j].z, cells.k[n][j].w);
        }
      }
      const bool more = tile + at.units < at.tiles;
      if (more) at.read_keys(cells, tile + at.units, lane);
#pragma unroll
      for (int n = 0; n < 2; n++)
#pragma unroll
        for (int i = 0; i < 4; i++) s[n][i] = base + n * 8 + 2 * q + (i & 1) < at.end ? s[n][i] * scale : -1e30f;
      u32 p[2][2] = {};
#pragma unroll
      for (int h = 0; h < ROWS; h++) {
        float top = fmaxf(fmaxf(s[0][2 * h], s[0][2 * h + 1]), fmaxf(s[1][2 * h], s[1][2 * h + 1]));
        top = fmaxf(top, __shfl_xor_sync(~0u, top, 1));
        top = fmaxf(top, __shfl_xor_sync(~0u, top, 2));
        top = fmaxf(top, most[h]);
        const float shrink = exp2f(most[h] - top);
        most[h] = top;
        total[h] *= shrink;
#pragma unroll
        for (int d = 0; d < 8; d++) o[d][2 * h] *= shrink, o[d][2 * h + 1] *= shrink;
#pragma unroll
        for (int n = 0; n < 2; n++) {
          const float e0 = exp2f(s[n][2 * h] - top), e1 = exp2f(s[n][2 * h + 1] - top);
          total[h] += e0 + e1;
          p[n][h] = pack<FP16>(e0, e1);
        }
      }
      const u32 *v0 = (const u32*)&cells.v[0], *v1 = (const u32*)&cells.v[1], *v2 = (const u32*)&cells.v[2], *v3 = (const u32*)&cells.v[3];
#pragma unroll
      for (int i = 0; i < 4; i++) {                           // of two neighbouring dimensions, the pairs of cells
        mma<FP16>(o[2 * i], p[0][0], p[0][1], p[1][0], p[1][1], __byte_perm(v0[i], v1[i], 0x5410), __byte_perm(v2[i], v3[i], 0x5410));
        mma<FP16>(o[2 * i + 1], p[0][0], p[0][1], p[1][0], p[1][1], __byte_perm(v0[i], v1[i], 0x7632), __byte_perm(v2[i], v3[i], 0x7632));
      }
      if (more) at.read_values(cells, tile + at.units, half, lane);
    }
#pragma unroll
    for (int h = 0; h < ROWS; h++) {
      total[h] += __shfl_xor_sync(~0u, total[h], 1);
      total[h] += __shfl_xor_sync(~0u, total[h], 2);
      if (g + 8 * h < GQ) {
        float* to = merge + (unit * GQ + g + 8 * h) * (D + 2);
        if (q == 0 && half == 0) to[D] = most[h], to[D + 1] = total[h];
#pragma unroll
        for (int d = 0; d < 8; d++) {
          to[half * 64 + 2 * q * 8 + d] = o[d][2 * h];
          to[half * 64 + (2 * q + 1) * 8 + d] = o[d][2 * h + 1];
        }
      }
    }
  }
  consumers_sync();
#pragma unroll 1
  for (int i = b.tid; i < GQ * D; i += T) {
    const int h = i / D, d = i % D;
    float top = -1e30f, sum = 0, value = 0;
    for (int u = 0; u < at.units; u++) top = fmaxf(top, merge[(u * GQ + h) * (D + 2) + D]);
    for (int u = 0; u < at.units; u++) {
      const float* from = merge + (u * GQ + h) * (D + 2);
      const float e = exp2f(from[D] - top);
      sum += from[D + 1] * e, value += from[d] * e;
    }
    out(h, d, value, top, sum);
  }
}

// One head of what `splits` blocks attended to → out(dim, value).
template <class Out> __device__ __forceinline__ void merge_splits(Block& b, int splits, const float* part, u32 turn, Out out) {
  constexpr int WAYS = T / D, MOST = (MAX_SPLITS + WAYS - 1) / WAYS;
  float *weights = (float*)(b.shared + X_AT), *sums = weights + 64;
  consumers_sync();                                           // nobody reads what was there
  if (b.warp == 0) {
    float m[2] = {-1e30f, -1e30f}, l[2] = {0, 0};
    bool all;
    do {
      all = true;
#pragma unroll
      for (int i = 0; i < 2; i++)
        if (b.lane + 32 * i < splits) {
          const u32 u = ldcg(part + (b.lane + 32 * i) * (D + 4) + D), v = ldcg(part + (b.lane + 32 * i) * (D + 4) + D + 1);
          all &= fresh(u, turn) && fresh(v, turn);
          m[i] = __uint_as_float(u), l[i] = __uint_as_float(v);
        }
    } while (!__all_sync(~0u, all));
    float top = fmaxf(m[0], m[1]);
#pragma unroll
    for (int o = 16; o; o >>= 1) top = fmaxf(top, __shfl_xor_sync(~0u, top, o));
    const float e0 = exp2f(m[0] - top), e1 = exp2f(m[1] - top);
    float sum = l[0] * e0 + l[1] * e1;
#pragma unroll
    for (int o = 16; o; o >>= 1) sum += __shfl_xor_sync(~0u, sum, o);
    weights[b.lane] = e0 / sum, weights[b.lane + 32] = e1 / sum;
  }
  const int way = b.tid / D, d = b.tid % D;
  u32 v[MOST];
  consumers_sync();
  bool all;
  do {
    all = true;
#pragma unroll
    for (int i = 0; i < MOST; i++) {
      v[i] = turn;
      if (way < WAYS && way + i * WAYS < splits) v[i] = ldcg(part + (way + i * WAYS) * (D + 4) + d);
      all &= fresh(v[i], turn);
    }
  } while (!__all_sync(~0u, all));
  float value = 0;
#pragma unroll
  for (int i = 0; i < MOST; i++)
    if (way + i * WAYS < splits) value += __uint_as_float(v[i]) * weights[way + i * WAYS];
  if (way < WAYS) sums[way * D + d] = value;
  consumers_sync();
  if (b.tid < D) {
    value = 0;
#pragma unroll
    for (int i = 0; i < WAYS; i++) value += sums[i * D + b.tid];
    out(b.tid, value);
  }
}

// ---- the step -----------------------------------------------------------------------------------------------------

struct Grid {        // a barrier of all blocks: a counter that only grows
  u32 *counter, target, blocks;
  __device__ __forceinline__ void arrive(int tid) {
    consumers_sync();
    target += blocks;
    if (tid == 0) add_release(counter);
  }
  __device__ __forceinline__ void wait(int tid) {
    if (tid == 0)
      while ((int)(acquire(counter) - target) < 0) {}
    consumers_sync();
  }
};

struct Step {        // all that a step reads and writes, as kernel.py lays it out
  const u8* tape;          // each block's part begins at starts[block]
  const u64* starts;
  const int* pages;        // of each block
  const float* vectors;    // biases and int8's scales, of each product in turn
  const u16* norms;        // weights and biases of the norms, in the order of use
  const u16* embedding;    // [V, H]
  const float *cos, *sin;  // [positions, D / 2]
  u16 *const *keys, *const *values;   // each layer's [slots, ring, KV, D]
  u16 *attended, *hidden;  // activations of o_proj and down
  float *x, *qkv, *part;   // the residual stream [3][H]: after o_proj, then two that make it after down; [QKV]; attention
                           // before it is merged [NH, MAX_SPLITS, D + 4]
  u64* best;               // the likeliest of each block's rows
  float* sums;             // [blocks][2]: the largest logit of each block, and the sum of exp(logit - it)
  u32* state;              // the barrier's counter, its value when the step began, and the layers computed so far; then the
                           // hints, 32 words apart: count, and its value when the step began
  int ring, window, layers, vocabulary, vocabulary_rows;   // rows of the lm_head; ids that are looked at
};
#define STEP_PARAMETERS                                                                                              \
  const u8 *tape, const u64 *starts, const int *pages, const float *vectors, const u16 *norms, const u16 *embedding,  \
      const float *cos, const float *sin, u16 *const *keys, u16 *const *values, u16 *attended, u16 *hidden,  \
      float *x, float *qkv, float *part, u64 *best, float *sums, u32 *state, int ring, int window,     \
      int layers, int vocabulary, int vocabulary_rows
#define STEP_ARGUMENTS                                                                                               \
  tape, starts, pages, vectors, norms, embedding, cos, sin, keys, values, attended, hidden, x, qkv,      \
      part, best, sums, state, ring, window, layers, vocabulary, vocabulary_rows

__device__ __forceinline__ float gelu(float v) {   // the tanh form: x * sigmoid(2 u)
  const float u = 0.7978845608f * (v + 0.044715f * v * v * v);
  return v / (1.f + __expf(-2.f * u));
}
__device__ __forceinline__ float silu(float v) { return v / (1.f + __expf(-v)); }

extern "C" __global__ void __launch_bounds__(T + 32, 1) step(STEP_PARAMETERS, int slot, int position, float* logits, const long long* token_at, long long* next, float* logprob) {
  const Step p{STEP_ARGUMENTS};
  extern __shared__ __align__(128) char shared[];
  Block b;
  b.index = blockIdx.x, b.blocks = gridDim.x, b.tid = threadIdx.x, b.warp = b.tid >> 5, b.lane = b.tid & 31;
  b.turn = 0, b.vectors = p.vectors, b.shared = shared;
  Reader r;
  r.shared = (u32)__cvta_generic_to_shared(shared), r.slot = 0, r.parity = 0, r.next = b.warp;
  if (b.tid < PAGES) {
    bar_init(r.shared + BARS_AT + b.tid * 8, BULK ? 1 : 32);
    bar_init(r.shared + BARS_AT + (PAGES + b.tid) * 8, W);
#if BULK
    asm volatile("fence.proxy.async;" ::: "memory");
#endif
  }
  __syncthreads();
  if (b.warp == W) {
    produce(p.tape + p.starts[b.index], p.pages[b.index], r.shared, b.lane);
    return;
  }
  const u32 base = p.state[1];
  Grid grid{p.state, base, (u32)b.blocks};
  const u32 turns = p.state[2];
  u32* begun = (u32*)(shared + TMP_AT) + 120;
  if (b.tid < HINTS) begun[b.tid] = hint_count(p.state, b.tid)[1];
  const float *o_x = p.x, *down_x[2] = {p.x + H, p.x + 2 * H};
  const u64 cells = (u64)slot * p.ring * (KV * D);             // of this sequence
  const int tid = b.tid, token = (int)*token_at;
  float* rope = (float*)(shared + ROPE_AT);
  for (int i = tid; i < D; i += T) rope[i] = i < D / 2 ? p.cos[(u64)position * (D / 2) + i] : p.sin[(u64)position * (D / 2) + i - D / 2];

  for (int i = tid; i < (16 - GQ) * D; i += T) ((u16*)(shared + QUERY_AT))[GQ * D + i] = 0;

  Attention at;
  at.ring = p.ring, at.start = position + 1 > p.window ? position + 1 - p.window : 0;
  const int count = position + 1 - at.start, most = b.blocks / KV < MAX_SPLITS ? b.blocks / KV : MAX_SPLITS;
  int splits = (count + 15) / 16 < most ? (count + 15) / 16 : most;
  const int per = ((count + splits - 1) / splits + 15) / 16 * 16;
  splits = (count + per - 1) / per;
  const int split = b.index / KV, arrivals = splits > 1 ? NH : KV;   // of attention
  at.kv = b.index % KV, at.begin = split * per, at.end = at.begin + per < count ? at.begin + per : count;
  at.tiles = (at.end - at.begin + 15) / 16, at.units = at.tiles < UNITS ? at.tiles : UNITS, at.newest = split == splits - 1;

  const u16* following = p.norms;                             // norms that are still to come
  constexpr int NORM = RMS ? H : 2 * H;
  auto embedded = [&](int k) {
    const uint2 u = __ldg((const uint2*)(p.embedding + (u64)token * H + k));
    return make_float4(low<FP16>(u.x), high<FP16>(u.x), low<FP16>(u.y), high<FP16>(u.y));
  };
  auto read_embedding = [&](float4 (&v)[NWAYS]) {
#pragma unroll
    for (int i = 0; i < NWAYS; i++)
      if ((i * T + tid) * 4 < H) v[i] = embedded((i * T + tid) * 4);
  };
  auto none = [](int) { return 0.f; };
  Gain gain;
  read_gain(gain, following, tid);
  following += NORM;

#pragma unroll 1
  for (int layer = 0; layer < p.layers; layer++) {
    u16 *keys = p.keys[layer] + cells, *values = p.values[layer] + cells;
    const u32 turn = turns + layer & 1;
    at.keys = keys, at.values = values;

    if (layer == 0) norm<LAYER_BITS>(b, gain, read_embedding);
    else norm<LAYER_BITS>(b, gain, [&](float4 (&v)[NWAYS]) { await(p.state, begun, AFTER_DOWN, b.blocks * layer, tid), read_stream(b, v, down_x[0], down_x[1], turn ^ 1); });
    rows<LAYER_BITS, H, false, QKV_BIAS, false, 1>(b, r, QKV, none, [&](const Place& to, float v, float) { stcg(p.qkv + to.row, tagged(v, turn)); });

    if (split < splits) {
      Cells first;
      if (b.warp / HALVES < at.units) at.read_keys(first, b.warp / HALVES, b.lane), at.read_values(first, b.warp / HALVES, b.warp % HALVES, b.lane);
      u16* query = (u16*)(shared + QUERY_AT);
      const u64 cell = (u64)(position % p.ring) * (KV * D) + at.kv * D;
      for (int h = b.warp; h < GQ + (at.newest ? 2 : 0); h += W) {
        if (h < GQ) head(p.qkv + (at.kv * GQ + h) * D, turn, following, rope, b.lane, [&](int d, u16 v) { query[h * D + d] = v; });
        else if (h == GQ) head(p.qkv + (NH + at.kv) * D, turn, following + D, rope, b.lane, [&](int d, u16 v) { query[16 * D + d] = keys[cell + d] = v; });
        else {
          float v[D / 32];
          read_head(v, p.qkv + (NH + KV + at.kv) * D, turn, b.lane);
#pragma unroll
          for (int i = 0; i < D / 32; i++) query[17 * D + b.lane + 32 * i] = values[cell + b.lane + 32 * i] = (u16)pack<FP16>(v[i], 0.f);
        }
      }
      consumers_sync();
      attend(b, at, first, [&](int h, int d, float v, float top, float sum) {
        if (splits == 1) return put<LAYER_BITS>(p.attended, (at.kv * GQ + h) * D + d, v / sum, turn, b.lane);
        float* to = p.part + ((u64)(at.kv * GQ + h) * MAX_SPLITS + split) * (D + 4);
        stcg(to + d, tagged(v, turn));
        if (d == 0) stcg(to + D, tagged(top, turn)), stcg(to + D + 1, tagged(sum, turn));
      });
      if (splits == 1) arrive(p.state, AFTER_ATTENTION, tid);
    }
    if (split >= splits && split < MAX_SPLITS || splits == 1)   // what no block attends to has a turn too
      for (int i = tid; split < MAX_SPLITS && i < GQ * (D + 2); i += T)
        stcg(p.part + ((u64)(at.kv * GQ + i / (D + 2)) * MAX_SPLITS + split) * (D + 4) + i % (D + 2), turn);
    following += QK_NORM ? 2 * D : 0;
    if (splits > 1)
#pragma unroll 1
      for (int h = b.blocks - 1 - b.index; h < NH; h += b.blocks) {
                merge_splits(b, splits, p.part + (u64)h * MAX_SPLITS * (D + 4), turn, [&](int d, float v) { put<LAYER_BITS>(p.attended, h * D + d, v, turn, b.lane); });
        arrive(p.state, AFTER_ATTENTION, tid);
      }
    read_gain(gain, following, tid);
    following += NORM;

    await(p.state, begun, AFTER_ATTENTION, arrivals * (layer + 1), tid);
    if (b.has(H / 8)) fetch<LAYER_BITS, NH * D>(b, p.attended, NH * D, turn);
    auto residual = [&](int row) {
      return layer == 0 ? low<FP16>(p.embedding[(u64)token * H + row]) : __uint_as_float(ldcg(down_x[0] + row)) + __uint_as_float(ldcg(down_x[1] + row));
    };
    rows<LAYER_BITS, NH * D, false, O_BIAS, true, 1>(b, r, H, residual, [&](const Place& to, float v, float) { stcg(p.x + to.row, tagged(to.before + v, turn)); });
    arrive(p.state, AFTER_O, tid);

    norm<LAYER_BITS>(b, gain, [&](float4 (&v)[NWAYS]) { await(p.state, begun, AFTER_O, b.blocks * (layer + 1), tid), read_stream(b, v, o_x, nullptr, turn); });
    rows<LAYER_BITS, H, GATED, UP_BIAS, false, 1>(b, r, UP, none, [&](const Place& to, float v, float up) {
      put<LAYER_BITS>(p.hidden, GATED ? to.row / 8 * 4 + to.row % 8 : to.row, GATED ? silu(v) * up : gelu(v), turn, b.lane);
    });
    arrive(p.state, AFTER_UP, tid);
    read_gain(gain, following, tid);
    following += NORM;

    const int half = b.first() & 1;                           // of the columns: the number of blocks is even
    await(p.state, begun, AFTER_UP, b.blocks * (layer + 1), tid);
    if (b.has(H / 4)) fetch<LAYER_BITS, FIRST>(b, p.hidden + half * FIRST, half ? FF - FIRST : FIRST, turn);
    rows<LAYER_BITS, FIRST, false, DOWN_BIAS, true, 2>(b, r, H, [&](int row) { return half ? 0.f : __uint_as_float(ldcg(o_x + row)); },
      [&](const Place& to, float v, float) { stcg(p.x + (1 + half) * H + to.row, tagged(to.before + v, turn)); });
    arrive(p.state, AFTER_DOWN, tid);
  }

  norm<HEAD_BITS>(b, gain, [&](float4 (&v)[NWAYS]) { await(p.state, begun, AFTER_DOWN, b.blocks * p.layers, tid), read_stream(b, v, down_x[0], down_x[1], turns + p.layers - 1 & 1); });
  u64 top = 0;                                                // the logit, ordered as an integer, and the row's complement
  float most_seen = -1e30f, sum = 0;
  rows<HEAD_BITS, H, false, HEAD_BIAS, false, 1>(b, r, (p.vocabulary_rows + 7) / 8 * 8, none, [&](const Place& to, float v, float) {
    if (to.row < p.vocabulary_rows) logits[to.row] = v;
    if (to.row >= p.vocabulary) return;
    const u32 u = __float_as_uint(v), ordered = u & 0x80000000u ? ~u : u | 0x80000000u;
    const u64 key = (u64)ordered << 32 | (u32)~to.row;
    top = key > top ? key : top;
    const float m = fmaxf(most_seen, v);
    sum = sum * __expf(most_seen - m) + __expf(v - m);
    most_seen = m;
  });
  auto join = [](float& m, float& s, float m2, float s2) {
    const float most = fmaxf(m, m2);
    s = s * __expf(m - most) + s2 * __expf(m2 - most), m = most;
  };
#pragma unroll
  for (int o = 16; o; o >>= 1) {
    const u64 k = __shfl_xor_sync(~0u, top, o);
    top = k > top ? k : top;
    const float m2 = __shfl_xor_sync(~0u, most_seen, o), s2 = __shfl_xor_sync(~0u, sum, o);
    join(most_seen, sum, m2, s2);
  }
  float* tmp = (float*)(shared + TMP_AT);
  u64* keys_seen = (u64*)(tmp + 64);
  if (b.lane == 0) tmp[b.warp] = most_seen, tmp[32 + b.warp] = sum, keys_seen[b.warp] = top;
  consumers_sync();
  if (tid == 0) {
    for (int w = 1; w < W; w++) join(most_seen, sum, tmp[w], tmp[32 + w]), top = keys_seen[w] > top ? keys_seen[w] : top;
    p.best[b.index] = top, p.sums[2 * b.index] = most_seen, p.sums[2 * b.index + 1] = sum;
  }
  grid.arrive(tid);
  if (b.index) return;
  grid.wait(tid);
  if (b.warp == 0) {
    top = 0, most_seen = -1e30f, sum = 0;
    for (int i = b.lane; i < b.blocks; i += 32) {
      const uint4 seen = ldcg4((p.best + (i & ~1)));
      const u64 k = i & 1 ? (u64)seen.w << 32 | seen.z : (u64)seen.y << 32 | seen.x;
      top = k > top ? k : top;
      join(most_seen, sum, __uint_as_float(ldcg(p.sums + 2 * i)), __uint_as_float(ldcg(p.sums + 2 * i + 1)));
    }
#pragma unroll
    for (int o = 16; o; o >>= 1) {
      const u64 k = __shfl_xor_sync(~0u, top, o);
      top = k > top ? k : top;
      const float m2 = __shfl_xor_sync(~0u, most_seen, o), s2 = __shfl_xor_sync(~0u, sum, o);
      join(most_seen, sum, m2, s2);
    }
    if (b.lane == 0) {
      const u32 ordered = (u32)(top >> 32);
      const float best = __uint_as_float(ordered & 0x80000000u ? ordered & 0x7fffffffu : ~ordered);
      *next = (long long)(u32)~(u32)top;
      *logprob = best - most_seen - __logf(sum);
      p.state[1] = grid.target, p.state[2] = turns + p.layers;
      for (int i = 0; i < HINTS; i++) hint_count(p.state, i)[1] = begun[i] + p.layers * (i == AFTER_ATTENTION ? arrivals : b.blocks);
    }
  }
}
