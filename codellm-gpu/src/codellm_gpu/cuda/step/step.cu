// The step itself: all layers, then the logits and the likeliest of them.

struct Grid {  // a barrier of all blocks: a counter that only grows
  u32 *counter, target, blocks;
  __device__ __forceinline__ void arrive(int tid) {
    consumers_sync();
    target += blocks;
    if (tid == 0) add_release(counter);
  }
  __device__ __forceinline__ void wait(int tid) {
    if (tid == 0)
      while ((int)(acquire(counter) - target) < 0) {
      }
    consumers_sync();
  }
};

struct Step {      // all that a step reads and writes, as kernel.py lays it out
  const u8* tape;  // each block's part begins at starts[block]
  const u64* starts;
  const int* pages;                  // of each block
  const float* vectors;              // biases and int8's scales, of each product in turn
  const u16* norms;                  // weights and biases of the norms, in the order of use
  const u16* embedding;              // [V, H]
  const float *cos, *sin;            // [positions, D / 2]
  u16 *const *keys, *const *values;  // each layer's [slots, ring, KV, D]
  u16 *attended, *hidden;            // activations of o_proj and down
  float *x, *qkv, *part;  // the residual stream [3][H]: after o_proj, then two that make it after down; [QKV];
                          // attention before it is merged [NH, MAX_SPLITS, D + 4]
  u64* best;    // the likeliest of each block's rows
  float* sums;  // [blocks][2]: the largest logit of each block, and the sum of exp(logit - it)
  u32* state;   // the barrier's counter, its value when the step began, and the layers computed so far; then the
                // hints, 32 words apart: count, and its value when the step began
  int ring, window, layers, vocabulary, vocabulary_rows;  // rows of the lm_head; ids that are looked at
};
#define STEP_PARAMETERS                                                                                               \
  const u8 *tape, const u64 *starts, const int *pages, const float *vectors, const u16 *norms, const u16 *embedding,  \
      const float *cos, const float *sin, u16 *const *keys, u16 *const *values, u16 *attended, u16 *hidden, float *x, \
      float *qkv, float *part, u64 *best, float *sums, u32 *state, int ring, int window, int layers, int vocabulary,  \
      int vocabulary_rows
#define STEP_ARGUMENTS                                                                                                \
  tape, starts, pages, vectors, norms, embedding, cos, sin, keys, values, attended, hidden, x, qkv, part, best, sums, \
      state, ring, window, layers, vocabulary, vocabulary_rows

__device__ __forceinline__ float gelu(float v) {  // the tanh form: x * sigmoid(2 u)
  const float u = 0.7978845608f * (v + 0.044715f * v * v * v);
  return v / (1.f + __expf(-2.f * u));
}
__device__ __forceinline__ float silu(float v) { return v / (1.f + __expf(-v)); }

extern "C" __global__ void __launch_bounds__(T + 32, 1)
    step(STEP_PARAMETERS, int slot, int position, float* logits, const long long* token_at, long long* next,
         float* logprob) {
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
  const u64 cells = (u64)slot * p.ring * (KV * D);  // of this sequence
  const int tid = b.tid, token = (int)*token_at;
  float* rope = (float*)(shared + ROPE_AT);
  for (int i = tid; i < D; i += T)
    rope[i] = i < D / 2 ? p.cos[(u64)position * (D / 2) + i] : p.sin[(u64)position * (D / 2) + i - D / 2];

  for (int i = tid; i < (16 - GQ) * D; i += T) ((u16*)(shared + QUERY_AT))[GQ * D + i] = 0;

  Attention at;
  at.ring = p.ring, at.start = position + 1 > p.window ? position + 1 - p.window : 0;
  const int count = position + 1 - at.start, most = b.blocks / KV < MAX_SPLITS ? b.blocks / KV : MAX_SPLITS;
  int splits = (count + 15) / 16 < most ? (count + 15) / 16 : most;
  const int per = ((count + splits - 1) / splits + 15) / 16 * 16;
  splits = (count + per - 1) / per;
  const int split = b.index / KV, arrivals = splits > 1 ? NH : KV;  // of attention
  at.kv = b.index % KV, at.begin = split * per, at.end = at.begin + per < count ? at.begin + per : count;
  at.tiles = (at.end - at.begin + 15) / 16, at.units = at.tiles < UNITS ? at.tiles : UNITS,
  at.newest = split == splits - 1;

  const u16* following = p.norms;  // norms that are still to come
  constexpr int NORM = RMS ? H : 2 * H;
  auto embedded = [&](int k) {
    const uint2 u = __ldg((const uint2*)(p.embedding + (u64)token * H + k));
    return make_float4(low<FP16>(u.x), high<FP16>(u.x), low<FP16>(u.y), high<FP16>(u.y));
  };
  auto read_embedding = [&](float4(&v)[NWAYS]) {
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

    if (layer == 0)
      norm<LAYER_BITS>(b, gain, read_embedding);
    else
      norm<LAYER_BITS>(b, gain, [&](float4(&v)[NWAYS]) {
        await(p.state, begun, AFTER_DOWN, b.blocks * layer, tid), read_stream(b, v, down_x[0], down_x[1], turn ^ 1);
      });
    rows<LAYER_BITS, H, false, QKV_BIAS, false, 1>(
        b, r, QKV, none, [&](const Place& to, float v, float) { stcg(p.qkv + to.row, tagged(v, turn)); });

    if (split < splits) {
      Cells first;
      if (b.warp / HALVES < at.units)
        at.read_keys(first, b.warp / HALVES, b.lane), at.read_values(first, b.warp / HALVES, b.warp % HALVES, b.lane);
      u16* query = (u16*)(shared + QUERY_AT);
      const u64 cell = (u64)(position % p.ring) * (KV * D) + at.kv * D;
      for (int h = b.warp; h < GQ + (at.newest ? 2 : 0); h += W) {
        if (h < GQ)
          head(p.qkv + (at.kv * GQ + h) * D, turn, following, rope, b.lane,
               [&](int d, u16 v) { query[h * D + d] = v; });
        else if (h == GQ)
          head(p.qkv + (NH + at.kv) * D, turn, following + D, rope, b.lane,
               [&](int d, u16 v) { query[16 * D + d] = keys[cell + d] = v; });
        else {
          float v[D / 32];
          read_head(v, p.qkv + (NH + KV + at.kv) * D, turn, b.lane);
#pragma unroll
          for (int i = 0; i < D / 32; i++)
            query[17 * D + b.lane + 32 * i] = values[cell + b.lane + 32 * i] = (u16)pack<FP16>(v[i], 0.f);
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
    if (split >= splits && split < MAX_SPLITS || splits == 1)  // what no block attends to has a turn too
      for (int i = tid; split < MAX_SPLITS && i < GQ * (D + 2); i += T)
        stcg(p.part + ((u64)(at.kv * GQ + i / (D + 2)) * MAX_SPLITS + split) * (D + 4) + i % (D + 2), turn);
    following += QK_NORM ? 2 * D : 0;
    if (splits > 1)
#pragma unroll 1
      for (int h = b.blocks - 1 - b.index; h < NH; h += b.blocks) {
        merge_splits(b, splits, p.part + (u64)h * MAX_SPLITS * (D + 4), turn,
                     [&](int d, float v) { put<LAYER_BITS>(p.attended, h * D + d, v, turn, b.lane); });
        arrive(p.state, AFTER_ATTENTION, tid);
      }
    read_gain(gain, following, tid);
    following += NORM;

    await(p.state, begun, AFTER_ATTENTION, arrivals * (layer + 1), tid);
    if (b.has(H / 8)) fetch<LAYER_BITS, NH * D>(b, p.attended, NH * D, turn);
    auto residual = [&](int row) {
      return layer == 0 ? low<FP16>(p.embedding[(u64)token * H + row])
                        : __uint_as_float(ldcg(down_x[0] + row)) + __uint_as_float(ldcg(down_x[1] + row));
    };
    rows<LAYER_BITS, NH * D, false, O_BIAS, true, 1>(
        b, r, H, residual, [&](const Place& to, float v, float) { stcg(p.x + to.row, tagged(to.before + v, turn)); });
    arrive(p.state, AFTER_O, tid);

    norm<LAYER_BITS>(b, gain, [&](float4(&v)[NWAYS]) {
      await(p.state, begun, AFTER_O, b.blocks * (layer + 1), tid), read_stream(b, v, o_x, nullptr, turn);
    });
    rows<LAYER_BITS, H, GATED, UP_BIAS, false, 1>(b, r, UP, none, [&](const Place& to, float v, float up) {
      put<LAYER_BITS>(p.hidden, GATED ? to.row / 8 * 4 + to.row % 8 : to.row, GATED ? silu(v) * up : gelu(v), turn,
                      b.lane);
    });
    arrive(p.state, AFTER_UP, tid);
    read_gain(gain, following, tid);
    following += NORM;

    const int half = b.first() & 1;  // of the columns: the number of blocks is even
    await(p.state, begun, AFTER_UP, b.blocks * (layer + 1), tid);
    if (b.has(H / 4)) fetch<LAYER_BITS, FIRST>(b, p.hidden + half * FIRST, half ? FF - FIRST : FIRST, turn);
    rows<LAYER_BITS, FIRST, false, DOWN_BIAS, true, 2>(
        b, r, H, [&](int row) { return half ? 0.f : __uint_as_float(ldcg(o_x + row)); },
        [&](const Place& to, float v, float) { stcg(p.x + (1 + half) * H + to.row, tagged(to.before + v, turn)); });
    arrive(p.state, AFTER_DOWN, tid);
  }

  norm<HEAD_BITS>(b, gain, [&](float4(&v)[NWAYS]) {
    await(p.state, begun, AFTER_DOWN, b.blocks * p.layers, tid),
        read_stream(b, v, down_x[0], down_x[1], turns + p.layers - 1 & 1);
  });
  u64 top = 0;  // the logit, ordered as an integer, and the row's complement
  float most_seen = -1e30f, sum = 0;
  rows<HEAD_BITS, H, false, HEAD_BIAS, false, 1>(
      b, r, (p.vocabulary_rows + 7) / 8 * 8, none, [&](const Place& to, float v, float) {
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
    for (int w = 1; w < W; w++)
      join(most_seen, sum, tmp[w], tmp[32 + w]), top = keys_seen[w] > top ? keys_seen[w] : top;
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
      *next = (long long)(u32) ~(u32)top;
      *logprob = best - most_seen - __logf(sum);
      p.state[1] = grid.target, p.state[2] = turns + p.layers;
      for (int i = 0; i < HINTS; i++)
        hint_count(p.state, i)[1] = begun[i] + p.layers * (i == AFTER_ATTENTION ? arrivals : b.blocks);
    }
  }
}
