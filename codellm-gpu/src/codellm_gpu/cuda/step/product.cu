// Products of matrices: the groups of a tape times activations in shared memory.

// Where element k of a vector of activations lies, so that a lane's elements of a chunk come in 16 bytes.
template <int BITS>
__device__ __forceinline__ int place(int k) {
  if (BITS == 8) return (k & ~15) | (k & 4) << 1 | (k & 8) >> 1 | (k & 3);
  if (BITS == 4) return (k & ~127) | (k & 16) << 2 | (k & 96) >> 1 | (k & 4) << 1 | (k & 8) >> 1 | (k & 3);
  return k;
}
// Four elements from k on, a multiple of 4, as they are stored: high nibbles stay in place, times 16, so their x is
// / 16.
template <int BITS>
__device__ __forceinline__ uint2 four(float a, float b, float c, float d) {
  constexpr bool HALF = Chunk<BITS>::HALF;
  const float s = BITS == 4 ? 0.0625f : 1.f;
  return make_uint2(pack<HALF>(a, b), pack<HALF>(c * s, d * s));
}

__device__ __forceinline__ u32 nibbles(u32 u, u32 mask) {  // 1024 + nibble, or 1024 + 16 * nibble, twice
  u32 t;
  asm("lop3.b32 %0,%1,%2,%3,0xEA;" : "=r"(t) : "r"(u), "r"(mask), "r"(0x64006400u));
  return t;
}

__device__ __forceinline__ uint4 read128(const char* p) { return *(const uint4*)p; }
__device__ __forceinline__ uint2 read64(const char* p) { return *(const uint2*)p; }
// Activations are read by the 8 lanes of B's columns 0 and 1 alone: what others have is multiplied into columns that
// nobody looks at, and shared memory would hand 512 bytes to a warp where these are 128.
__device__ __forceinline__ void few128(uint4& v, u32 at, u32 mine) {
  asm volatile("{.reg .pred p; setp.ne.u32 p,%5,0; @p ld.shared.v4.u32 {%0,%1,%2,%3},[%4];}"
               : "+r"(v.x), "+r"(v.y), "+r"(v.z), "+r"(v.w)
               : "r"(at), "r"(mine)
               : "memory");
}
__device__ __forceinline__ void few64(uint4& v, u32 at, u32 mine) {
  asm volatile("{.reg .pred p; setp.ne.u32 p,%3,0; @p ld.shared.v2.u32 {%0,%1},[%2];}"
               : "+r"(v.x), "+r"(v.y)
               : "r"(at), "r"(mine)
               : "memory");
}

// One group of a tile: `at` is its place in the ring, `x` the lane's activations, `z` the offsets of its chunks. All is
// read before it is multiplied, and chunks take turns, so that no product waits for the one before it.
template <int BITS>
__device__ __forceinline__ void multiply(float (&c)[2][4], uint4 (&b)[G], float& sum, const char* at, u32 x,
                                         const char* all, const float* z, int lane) {
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
    const u32 magic = 0x64646464u;  // 1024 + byte, as float16
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
    for (int half = 0; half < 2; half++) {  // here all lanes read: more instructions would cost more
      uint4 a[G];
#pragma unroll
      for (int j = 0; j < G; j++) a[j] = read128(all + j * STRIDE + half * 128);
#pragma unroll
      for (int i = 0; i < 2; i++)
#pragma unroll
        for (int j = 0; j < G; j++) {
          const u32 u = half ? (i ? w[j].w : w[j].z) : (i ? w[j].y : w[j].x), v = u >> 8;
          mma<HALF>(e[j], nibbles(u, 0x000f000fu), nibbles(v, 0x000f000fu), nibbles(u, 0x00f000f0u),
                    nibbles(v, 0x00f000f0u), i ? a[j].z : a[j].x, i ? a[j].w : a[j].y);
        }
    }
    const float scale[G] = {low<SCALE_FP16>(scales.x), high<SCALE_FP16>(scales.x), low<SCALE_FP16>(scales.y),
                            high<SCALE_FP16>(scales.y)};
    const float offset[G] = {offsets.x, offsets.y, offsets.z, offsets.w},
                sums[G] = {plain.x, plain.y, plain.z, plain.w};
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
    multiply<BITS>(c, b, sum, shared + r.slot * PAGE + warp * GROUP_BYTES, x + group * (G * Chunk<BITS>::SIZE * 2),
                   shared + (x - r.shared) + group * (G * Chunk<BITS>::SIZE * 2), z + group * G, lane);
    __syncwarp();
    if (lane == 0) bar_arrive(empty + r.slot * 8);
    if (++r.slot == PAGES) r.slot = 0, r.parity ^= 1;
  }
  while (tile < tiles) flush();
  r.next = i - count;
}

// The offsets of chunks, whose activations lie over LANES lanes: nibbles and bytes stand for 1024 more, 64 more in the
// high nibble, and for their zero. `first` is a lane's sum of what low nibbles take, `second` of what high ones do.
template <int BITS, int LANES>
__device__ __forceinline__ void offset(float* z, int chunk, float first, float second, int lane, bool there) {
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

struct Place {  // a thread's row of a product
  bool own;
  int row;  // in the order of the tape
  float bias, scale, before;
};

struct Block {
  int index, blocks, tid, warp, lane;
  int turn;  // tiles dealt so far: no product begins again at block 0, so uneven counts cancel
  const float* vectors;
  char* shared;
  __device__ __forceinline__ int first() const { return (index - turn % blocks + blocks) % blocks; }
  __device__ __forceinline__ bool has(int tiles) const { return first() < tiles; }  // any of so many tiles
};

// One product: rows/8 tiles are dealt to the blocks, of two halves of the columns each where it is SPLIT, one half to
// the even blocks. `before(row)` is read ahead, `after(place, value, gate)` takes the sum; the first half has the bias.
// The tile of a gated product has four rows of the gate, then the same four of the other part.
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
