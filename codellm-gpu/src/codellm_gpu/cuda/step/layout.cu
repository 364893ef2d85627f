// One decoding step of one sequence as one persistent kernel: a block per multiprocessor, all layers, no launch
// between.
//
// Weights lie in the order in which each block reads them (tape.py). A producer warp copies them, page after page,
// into a ring in shared memory and never stops at a barrier of the grid, so that memory works on while activations are
// exchanged. W consumer warps multiply: group i of a block's tape belongs to warp i mod W, a page holds one group of
// each warp. What else a page holds, and every vector, is said in tape.py; the sizes below are macros of shape.py.
//
// A matrix product takes the tensor cores' m16n8k16 with weights as A and activations as B. A tile has 8 rows of the
// matrix: the upper and lower 8 rows of A are two halves of k, which columns 0 and 1 of B take, and c0 + c3 is the sum.
//
// Blocks exchange activations without a barrier or a fence: each 32-bit word carries a bit that says in which turn it
// was written (the lowest of a float; see `Exchange`), and who reads it looks again until all bits are of this turn. A
// word is written again only by a block that has seen what every reader made of it: each block has tiles of qkv and of
// the up projection, and each of those needs all that came before. No float is added atomically, so a step repeats to
// the bit.

typedef unsigned char u8;
typedef unsigned short u16;
typedef unsigned u32;
typedef unsigned long long u64;

constexpr int T = W * 32;    // consumer threads
constexpr int GQ = NH / KV;  // query heads of a key-value head
constexpr int QKV = (NH + 2 * KV) * D;
constexpr int UP = GATED ? 2 * FF : FF;
constexpr int G = 4;  // chunks of a group
constexpr bool QUANTIZED = LAYER_BITS != 16;
// What o_proj and down take is exchanged in another scale: float16 has less range than the bfloat16 of a model that is
// quantized, and plain bfloat16 gives the highest bit of its exponent (see `tagged`).
constexpr float SHRINK = FP16 ? 1.f : QUANTIZED ? 1.f / 16 : 5.421010862427522e-20f;
constexpr int NWAYS = (H / 4 + T - 1) / T;  // float4s of the residual stream a thread holds

template <int BITS>
struct Chunk {                                      // 512 bytes: 8 rows by SIZE columns
  static constexpr int SIZE = 512 / BITS;           // 32, 64, 128
  static constexpr bool HALF = BITS != 16 || FP16;  // activations are float16, else bfloat16
};
template <int BITS, int K>
struct Groups {  // of a row of K columns, padded
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
constexpr int TMP_AT = QUERY_AT + 18 * D * 2;  // 16 query heads, then the newest key and value
constexpr int BARS_AT = TMP_AT + 128 * 4;
