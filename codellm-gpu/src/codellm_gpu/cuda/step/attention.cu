// Attention of a token to the cells of its sequence, shared out over blocks and merged.

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
__device__ __forceinline__ void head(const float* from, u32 turn, const u16* weight, const float* rope, int lane,
                                     Put put) {
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

// Keys and values of 16 cells, as a warp multiplies them: read as they lie, since any order of a head's dimensions will
// do for q·k as long as both have it, and any of the cells for p·v.
struct Cells {
  uint4 k[2][D / 32], v[4];
};
struct Attention {  // of a block: the cells from `begin` to `end` of those that the token attends to
  const u16 *keys, *values;
  u32 start, ring;
  int kv, begin, end, tiles, units;
  bool newest;  // whether the last of them is the token's own, which is not in the cache yet
  __device__ __forceinline__ u64 cell(int i) const {  // of the i-th token attended to, as an offset
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
      c.v[n] = ldcg4(values + cell(begin + tile * 16 + 2 * (lane & 3) + (n & 1) + (n & 2) * 4) + half * 64 +
                     (lane >> 2) * 8);
  }
};

// Attention of the GQ query heads of a key-value head to a block's cells. Heads are rows of the tensor cores' A. A unit
// of warps takes 16 cells at a time, the first of them read before, and each warp of it 64 of the D dimensions of the
// values. Hands on `out(head, dim, value, largest, sum)`: value and sum in units of 2^largest.
template <class Out>
__device__ __forceinline__ void attend(Block& b, const Attention& at, Cells& cells, Out out) {
  constexpr int ROWS = GQ > 8 ? 2 : 1;  // of 8 heads
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
        const int own = at.end - 1 - base;  // its place among the 16
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
      const u32 *v0 = (const u32*)&cells.v[0], *v1 = (const u32*)&cells.v[1], *v2 = (const u32*)&cells.v[2],
                *v3 = (const u32*)&cells.v[3];
#pragma unroll
      for (int i = 0; i < 4; i++) {  // of two neighbouring dimensions, the pairs of cells
        mma<FP16>(o[2 * i], p[0][0], p[0][1], p[1][0], p[1][1], __byte_perm(v0[i], v1[i], 0x5410),
                  __byte_perm(v2[i], v3[i], 0x5410));
        mma<FP16>(o[2 * i + 1], p[0][0], p[0][1], p[1][0], p[1][1], __byte_perm(v0[i], v1[i], 0x7632),
                  __byte_perm(v2[i], v3[i], 0x7632));
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
template <class Out>
__device__ __forceinline__ void merge_splits(Block& b, int splits, const float* part, u32 turn, Out out) {
  constexpr int WAYS = T / D, MOST = (MAX_SPLITS + WAYS - 1) / WAYS;
  float *weights = (float*)(b.shared + X_AT), *sums = weights + 64;
  consumers_sync();  // nobody reads what was there
  if (b.warp == 0) {
    float m[2] = {-1e30f, -1e30f}, l[2] = {0, 0};
    bool all;
    do {
      all = true;
#pragma unroll
      for (int i = 0; i < 2; i++)
        if (b.lane + 32 * i < splits) {
          const u32 u = ldcg(part + (b.lane + 32 * i) * (D + 4) + D),
                    v = ldcg(part + (b.lane + 32 * i) * (D + 4) + D + 1);
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
