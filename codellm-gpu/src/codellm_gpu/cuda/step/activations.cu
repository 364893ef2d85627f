// Activations on their way into shared memory: the normed residual stream, and what other blocks computed.

struct Gain {  // a thread's part of a norm's weight and bias, read before it is needed
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
// A thread's part of the residual stream, once all of it is of this turn: `second` is added where it has two parts.
// What was not there yet is read again, and nothing else.
__device__ __forceinline__ void read_stream(Block& b, float4 (&v)[NWAYS], const float* stream, const float* second,
                                            u32 turn) {
  uint4 u[NWAYS], w[NWAYS];
  u32 missing = 0;
  auto there = [&](int i) { return (i * T + b.tid) * 4 < H; };
#pragma unroll
  for (int i = 0; i < NWAYS; i++) {  // all at once
    u[i] = there(i) ? ldcg4(stream + (i * T + b.tid) * 4) : make_uint4(turn, turn, turn, turn);
    w[i] = there(i) && second ? ldcg4(second + (i * T + b.tid) * 4) : make_uint4(0, 0, 0, 0);
  }
#pragma unroll
  for (int i = 0; i < NWAYS; i++)
    missing |= (u32)(there(i) && !(fresh(u[i], turn) && (!second || fresh(w[i], turn)))) << i;
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
      v[i] = make_float4(
          __uint_as_float(u[i].x) + __uint_as_float(w[i].x), __uint_as_float(u[i].y) + __uint_as_float(w[i].y),
          __uint_as_float(u[i].z) + __uint_as_float(w[i].z), __uint_as_float(u[i].w) + __uint_as_float(w[i].w));
}
// The normed residual stream → activations in shared memory. `read` fills a thread's part of the stream.
template <int BITS, class Read>
__device__ __forceinline__ void norm(Block& b, const Gain& g, Read read) {
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
      n[0] *= low<FP16>(g.weight[i].x), n[1] *= high<FP16>(g.weight[i].x), n[2] *= low<FP16>(g.weight[i].y),
          n[3] *= high<FP16>(g.weight[i].y);
      if (!RMS)
        n[0] += low<FP16>(g.bias[i].x), n[1] += high<FP16>(g.bias[i].x), n[2] += low<FP16>(g.bias[i].y),
            n[3] += high<FP16>(g.bias[i].y);
      y = four<BITS>(n[0], n[1], n[2], n[3]);
      *(uint2*)(x + place<BITS>(k)) = y;
    }
    if (BITS != 16)
      offset<BITS, SIZE / 4>(z, k / SIZE, low<true>(y.x) + high<true>(y.x), low<true>(y.y) + high<true>(y.y), b.lane,
                             k < H);
  }
  for (int k = H + b.tid * 4; k < Groups<BITS, H>::PADDED; k += T * 4) {
    *(uint2*)(x + place<BITS>(k)) = make_uint2(0, 0);
    if (BITS != 16 && k % SIZE == 0) z[k / SIZE] = 0, z[ZEROS && BITS == 4 ? KMAX / 128 + k / SIZE : k / SIZE] = 0;
  }
  consumers_sync();
}
// Activations that other blocks computed → shared memory, once all are of this turn.
template <int BITS, int K>
__device__ __forceinline__ void fetch(Block& b, const u16* from, int columns, u32 turn) {
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
  consumers_sync();  // nobody reads what was there
#pragma unroll
  for (int n = 0; n < WAYS; n++) {
    const int i = n * T + b.tid;
    if (!HALF)
      v[n].x &= ~TURN_BIT<HALF>, v[n].y &= ~TURN_BIT<HALF>, v[n].z &= ~TURN_BIT<HALF>, v[n].w &= ~TURN_BIT<HALF>;
    if (i < ALL) *(uint4*)(x + i * 16) = v[n];
    if (BITS != 16)  // in 16 bytes are two fours of elements, as `four` stores them
      offset<BITS, LANES>(
          z, i / LANES, (low<true>(v[n].x) + high<true>(v[n].x)) + (low<true>(v[n].z) + high<true>(v[n].z)),
          (low<true>(v[n].y) + high<true>(v[n].y)) + (low<true>(v[n].w) + high<true>(v[n].w)), b.lane, i < ALL);
  }
  consumers_sync();
}
// An element of the activations that others will fetch: of two neighbours, the even one writes both.
template <int BITS>
__device__ __forceinline__ void put(u16* to, int k, float v, u32 turn, int lane) {
  v *= BITS == 4 && (k & 2) ? SHRINK * 0.0625f : SHRINK;
  if (Chunk<BITS>::HALF) v = v > 65504.f ? 65504.f : v < -65504.f ? -65504.f : v;  // which leaves NaN what it is
  const float next = __shfl_down_sync(3u << (lane & 30), v, 1);
  if (!(k & 1)) stcg(to + place<BITS>(k), tagged<Chunk<BITS>::HALF>(v, next, turn));
}
