// Copyright 2026 The Trireme authors
// SPDX-License-Identifier: Apache-2.0

#include "trireme/ops/kernels/attention_kernels.h"

#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "trireme/ops/kernels/attention_kernels.cc"
#include <hwy/foreach_target.h>
// After it:
#include <algorithm>
#include <cmath>
#include <limits>
#include <type_traits>

#include "trireme/ops/kernels/matrix_kernels-inl.h"
#include "trireme/ops/kernels/tasks.h"

HWY_BEFORE_NAMESPACE();
namespace trireme::ops::HWY_NAMESPACE {

// Whole tiles of every set of vector units.
inline constexpr std::int64_t kQueryBlock = 96;
inline constexpr std::int64_t kKeyBlock = 192;
static_assert(kQueryBlock % kTileRows == 0 && kKeyBlock % kTileRows == 0);
static_assert(kKeyBlock % kTileColumns == 0 && kKeyBlock <= kMaxDepth);

inline constexpr float kMinusInfinity = -std::numeric_limits<float>::infinity();

// Sequence and head of one task, and its views as matrices of tokens x D.
struct Head {
  std::int64_t sequence = 0;
  std::int64_t head = 0;

  template <class T>
  T* at(const HeadsView& view, std::int64_t head_of_view, std::int64_t token) const {
    return static_cast<T*>(view.data) + sequence * view.sequence_stride +
           head_of_view * view.head_stride + token * view.token_stride;
  }
};

// The first key that query t of a sequence sees; the last is its own place, key end_key() - 1 of
// query 0 and one on with each query. Both may lie outside of the keys.
HWY_INLINE std::int64_t first_key(const AttentionShape& s, std::int64_t sequence, std::int64_t t) {
  return first_visible(s, sequence, t) - s.key_begin;
}
HWY_INLINE std::int64_t end_key(const AttentionShape& s) { return s.query_begin - s.key_begin + 1; }
// The first key that one of the queries [t0, t0 + rows) sees.
HWY_INLINE std::int64_t first_key_of(const AttentionShape& s, std::int64_t sequence,
                                     std::int64_t t0, std::int64_t rows) {
  std::int64_t first = s.keys;
  for (std::int64_t t = t0; t < t0 + rows; ++t) first = std::min(first, first_key(s, sequence, t));
  return std::max<std::int64_t>(first, 0);
}

// Panels of a matrix, by rows, and what multiplies them.
struct LeftPanels {
  float* data;
  HWY_INLINE float* panel(std::int64_t row) const { return data + row / kTileRows * kLeftPanel; }
};

template <class T>
HWY_INLINE void pack_rows(const T* from, std::int64_t stride, std::int64_t rows, std::int64_t depth,
                          float scale, LeftPanels to) {
  for (std::int64_t r = 0; r < rows; r += kTileRows) {
    const std::int64_t count = std::min<std::int64_t>(kTileRows, rows - r);
    float* panel = to.panel(r);
    pack_left_by_rows(from + r * stride, stride, count, depth, panel);
    if (scale == 1.0F) continue;
    for (std::int64_t i = 0; i < count; ++i) {
      float* row = panel + i * kPanelStride;
      for (std::int64_t d = 0; d < depth; d += kLanes) {
        store(hn::Mul(load(row + d), fill(scale)), row + d);
      }
    }
  }
}

// A matrix [rows, columns] of tiles: row r, column c at tile(r, c)[r % kTileRows][c %
// kTileColumns].
struct Tiles {
  float* data;
  std::int64_t column_tiles;
  HWY_INLINE float* tile(std::int64_t row, std::int64_t column) const {
    return data + (row / kTileRows * column_tiles + column / kTileColumns) * kTileSize;
  }
};

// tiles [rows, columns] = (first ? 0 : tiles) + left x right.
template <bool kByRows>
HWY_INLINE void multiply_block(std::int64_t rows, std::int64_t columns, std::int64_t depth,
                               const float* left, const float* right, Tiles tiles, bool first) {
  for (std::int64_t r = 0; r < rows; r += kTileRows) {
    const std::int64_t count = std::min<std::int64_t>(kTileRows, rows - r);
    const float* panel = left + r / kTileRows * kLeftPanel;
    for (std::int64_t c = 0; c < columns; c += kTileColumns) {
      multiply_rows<kByRows>(count, depth, panel, right + c / kTileColumns * right_panel(depth),
                             tiles.tile(r, c), first);
    }
  }
}

// Memory of a task, all of one thread.
class Arena {
 public:
  explicit Arena(std::int64_t floats)
      : next_(static_cast<float*>(
            thread_scratch(Scratch::kOther, static_cast<std::size_t>(floats) * sizeof(float)))) {}
  float* take(std::int64_t floats) {
    float* taken = next_;
    next_ += padded(floats);
    return taken;
  }
  static std::int64_t padded(std::int64_t floats) { return (floats + 15) / 16 * 16; }

 private:
  float* next_;
};

HWY_INLINE std::int64_t width_tiles(const AttentionShape& s) {
  return (s.head_width + kTileColumns - 1) / kTileColumns;
}
HWY_INLINE std::int64_t left_floats(std::int64_t rows) {
  return (rows + kTileRows - 1) / kTileRows * kLeftPanel;
}
// Of `depth` x columns.
HWY_INLINE std::int64_t right_floats(std::int64_t depth, std::int64_t columns) {
  return (columns + kTileColumns - 1) / kTileColumns * right_panel(depth);
}
HWY_INLINE std::int64_t tile_floats(std::int64_t rows, std::int64_t column_tiles) {
  return (rows + kTileRows - 1) / kTileRows * column_tiles * kTileSize;
}

// keys [count, D] as the right matrix [D, count].
template <class T>
void pack_keys(const T* from, std::int64_t stride, std::int64_t count, std::int64_t width,
               float* panels) {
  for (std::int64_t c = 0; c < count; c += kTileColumns, panels += right_panel(width)) {
    pack_right_by_columns(from + c * stride, stride, std::min(kTileColumns, count - c), width,
                          panels);
  }
}

// Of query row r of a block and a block of keys that begins at key `begin`: columns [first, last)
// are visible.
struct Visible {
  std::int64_t first;
  std::int64_t last;
};
HWY_INLINE Visible visible(const AttentionShape& s, std::int64_t sequence, std::int64_t t,
                           std::int64_t begin, std::int64_t count) {
  const std::int64_t last = end_key(s) + t - begin;
  return {std::clamp<std::int64_t>(first_key(s, sequence, t) - begin, 0, count),
          std::clamp<std::int64_t>(last, 0, count)};
}

// A vector of scores at column c, minus infinity outside of what is visible.
HWY_INLINE Vec masked(Vec scores, std::int64_t c, Visible v) {
  if (c >= v.first && c + static_cast<std::int64_t>(kLanes) <= v.last) return scores;
  const auto inside = [&](std::int64_t bound) HWY_ATTR {
    return hn::FirstN(kF32Tag, static_cast<std::size_t>(std::clamp<std::int64_t>(
                                   bound - c, 0, static_cast<std::int64_t>(kLanes))));
  };
  const auto seen = hn::AndNot(inside(v.first), inside(v.last));
  return hn::IfThenElse(seen, scores, fill(kMinusInfinity));
}

// ---- forward

// Running state of a block of queries.
struct Running {
  float* most;  // m
  float* sum;   // l
  Tiles out;    // [kQueryBlock, D]
};

// One row of a block: scores become p in the left panel, and m, l and out follow.
void soften_row(const AttentionShape& s, std::int64_t r, Visible v, std::int64_t columns,
                Tiles scores, LeftPanels p, const Running& running) {
  const std::int64_t in_tile = r % kTileRows * kTileColumns;
  float* to = p.panel(r) + r % kTileRows * kPanelStride;
  const auto score = [&](std::int64_t c) HWY_ATTR {
    return masked(load(scores.tile(r, c) + in_tile + c % kTileColumns), c, v);
  };
  Vec most = fill(kMinusInfinity);
  for (std::int64_t c = 0; c < columns; c += kLanes) most = hn::Max(most, score(c));
  const float before = running.most[r];
  const float after = std::max(before, hn::GetLane(hn::MaxOfLanes(kF32Tag, most)));
  if (after == kMinusInfinity) {  // nothing visible so far
    for (std::int64_t c = 0; c < columns; c += kLanes) store(hn::Zero(kF32Tag), to + c);
    return;
  }
  Vec sums = hn::Zero(kF32Tag);
  for (std::int64_t c = 0; c < columns; c += kLanes) {
    const Vec e = exp(hn::Sub(score(c), fill(after)));
    store(e, to + c);
    sums = hn::Add(sums, e);
  }
  const float shrink = before == kMinusInfinity ? 0.0F : std::exp(before - after);
  running.most[r] = after;
  running.sum[r] = running.sum[r] * shrink + hn::GetLane(hn::SumOfLanes(kF32Tag, sums));
  if (shrink == 1.0F) return;
  for (std::int64_t c = 0; c < s.head_width; c += kTileColumns) {
    float* out = running.out.tile(r, c) + in_tile;
    for (std::int64_t i = 0; i < kTileColumns; i += kLanes) {
      store(hn::Mul(load(out + i), fill(shrink)), out + i);
    }
  }
}

// How out of a block ends: written, in the inputs' dtype, or added to what is there, in f32.
template <bool kAdded, class T>
void finish_block(const AttentionShape& s, const HeadsView& out, float* log_sums, Head head,
                  std::int64_t t0, std::int64_t rows, const Running& running) {
  using Out = std::conditional_t<kAdded, float, T>;
  const std::int64_t D = s.head_width;
  float* sums = log_sums + (head.sequence * s.heads + head.head) * s.queries + t0;
  for (std::int64_t r = 0; r < rows; ++r) {
    if (kAdded && running.sum[r] == 0.0F) continue;  // nothing to add
    float share = running.sum[r] == 0.0F ? 0.0F : 1.0F / running.sum[r], share_before = 0;
    float log_sum = running.most[r] + std::log(running.sum[r]);
    if (kAdded && sums[r] != kMinusInfinity) {
      // Not e^(log_sum - both): the shares must add up to 1, whatever the log-sums err by.
      const float most = std::max(sums[r], log_sum);
      const float before = std::exp(sums[r] - most), own = std::exp(log_sum - most);
      share *= own / (before + own);
      share_before = before / (before + own);
      log_sum = most + std::log(before + own);
    }
    sums[r] = log_sum;
    Out* to = head.at<Out>(out, head.head, t0 + r);
    for (std::int64_t d = 0; d < D; d += kLanes) {
      const std::size_t count = part_of(D, d);
      const Vec value =
          load(running.out.tile(r, d) + r % kTileRows * kTileColumns + d % kTileColumns);
      Vec result = hn::Mul(value, fill(share));
      if (kAdded) result = hn::MulAdd(load_part(to + d, count), fill(share_before), result);
      store_part(result, to + d, count);
    }
  }
}

// One block of queries of one head.
template <class T, bool kAdded>
void forward_block(const AttentionShape& s, const HeadsView& q, const HeadsView& k,
                   const HeadsView& v, const HeadsView& out, float* log_sums, Head head,
                   std::int64_t t0) {
  const std::int64_t rows = std::min(kQueryBlock, s.queries - t0), D = s.head_width;
  const std::int64_t kv_head = head.head / (s.heads / s.kv_heads);
  const std::int64_t key_tiles = kKeyBlock / kTileColumns;
  Arena arena(2 * left_floats(kQueryBlock) + right_floats(D, kKeyBlock) +
              right_floats(kKeyBlock, D) + tile_floats(kQueryBlock, key_tiles + width_tiles(s)) +
              2 * kQueryBlock + 16 * 8);
  const LeftPanels queries{arena.take(left_floats(kQueryBlock))};
  const LeftPanels p{arena.take(left_floats(kQueryBlock))};
  float* keys = arena.take(right_floats(D, kKeyBlock));
  float* values = arena.take(right_floats(kKeyBlock, D));
  const Tiles scores{arena.take(tile_floats(kQueryBlock, key_tiles)), key_tiles};
  const Running running{arena.take(kQueryBlock),
                        arena.take(kQueryBlock),
                        {arena.take(tile_floats(kQueryBlock, width_tiles(s))), width_tiles(s)}};
  std::fill_n(running.most, kQueryBlock, kMinusInfinity);
  std::fill_n(running.sum, kQueryBlock, 0.0F);
  std::fill_n(running.out.data, tile_floats(kQueryBlock, width_tiles(s)), 0.0F);
  pack_rows(head.at<const T>(q, head.head, t0), q.token_stride, rows, D, s.scale, queries);

  std::int64_t begin = first_key_of(s, head.sequence, t0, rows);
  const std::int64_t end = std::min(s.keys, end_key(s) + t0 + rows - 1);
  // Blocks of keys lie at multiples of kKeyBlock, so that no bit depends on what else is visible.
  for (begin = begin / kKeyBlock * kKeyBlock; begin < end; begin += kKeyBlock) {
    const std::int64_t count = std::min(kKeyBlock, end - begin);
    const std::int64_t padded = (count + kTileColumns - 1) / kTileColumns * kTileColumns;
    pack_keys(head.at<const T>(k, kv_head, begin), k.token_stride, count, D, keys);
    pack_right_by_rows(head.at<const T>(v, kv_head, begin), v.token_stride, D, count, values);
    multiply_block<true>(rows, count, D, queries.data, keys, scores, true);
    for (std::int64_t r = 0; r < rows; ++r) {
      soften_row(s, r, visible(s, head.sequence, t0 + r, begin, count), padded, scores, p, running);
    }
    multiply_block<true>(rows, D, count, p.data, values, running.out, false);
  }
  finish_block<kAdded, T>(s, out, log_sums, head, t0, rows, running);
}

void forward_task(const AttentionShape& s, const HeadsView& q, const HeadsView& k,
                  const HeadsView& v, const HeadsView& out, float* log_sums, bool added,
                  std::int64_t task) {
  const std::int64_t blocks = (s.queries + kQueryBlock - 1) / kQueryBlock;
  // The longest blocks, the last, first.
  const std::int64_t block = blocks - 1 - task % blocks;
  const Head head{task / blocks / s.heads, task / blocks % s.heads};
  const auto one_of = [&]<class T>(T) {
    return added ? forward_block<T, true> : forward_block<T, false>;
  };
  const auto one = s.element == Element::kF32 ? one_of(float{}) : one_of(Bf16{});
  one(s, q, k, v, out, log_sums, head, block * kQueryBlock);
}

std::int64_t forward_tasks(const AttentionShape& s) {
  return s.sequences * s.heads * ((s.queries + kQueryBlock - 1) / kQueryBlock);
}

// ---- backward

// The parts of a task's memory that all its blocks share.
struct BackwardMemory {
  float* keys;                    // right [D, keys]: k^T
  float* values;                  // right [D, keys]: v^T
  float* keys_by_rows;            // right [keys, D]
  LeftPanels queries, gradients;  // q scale, dout
  float* queries_by_rows;         // right [queries, D]: q
  float* gradients_by_rows;       // right [queries, D]: dout
  LeftPanels ds;                  // [queries, keys]
  float* transposed;              // left by columns, [keys, queries]: p^T, then ds^T
  float* plain;                   // p, then ds, [queries, kKeyBlock] by rows
  Tiles scores, dp;               // [queries, keys]
  Tiles k_grad, v_grad;           // [keys, D]
  Tiles q_grad;                   // [heads of the group x padded queries, D]
  float* dots;                    // sum(dout out), the same rows
};

HWY_INLINE std::int64_t padded_queries(const AttentionShape& s) {
  return (s.queries + kQueryBlock - 1) / kQueryBlock * kQueryBlock;
}

BackwardMemory backward_memory(const AttentionShape& s) {
  const std::int64_t D = s.head_width, key_tiles = kKeyBlock / kTileColumns, w = width_tiles(s);
  const std::int64_t rows = s.heads / s.kv_heads * padded_queries(s);
  const std::int64_t sizes[] = {right_floats(D, kKeyBlock),
                                right_floats(D, kKeyBlock),
                                right_floats(kKeyBlock, D),
                                left_floats(kQueryBlock),
                                left_floats(kQueryBlock),
                                right_floats(kQueryBlock, D),
                                right_floats(kQueryBlock, D),
                                left_floats(kQueryBlock),
                                left_floats(kKeyBlock),
                                kQueryBlock * kKeyBlock + 16,
                                tile_floats(kQueryBlock, key_tiles),
                                tile_floats(kQueryBlock, key_tiles),
                                tile_floats(kKeyBlock, w),
                                tile_floats(kKeyBlock, w),
                                tile_floats(rows, w),
                                rows};
  std::int64_t total = 0;
  for (const std::int64_t size : sizes) total += Arena::padded(size);
  Arena arena(total);
  const std::int64_t* size = sizes;
  const auto next = [&] { return arena.take(*size++); };
  BackwardMemory m{};
  m.keys = next();
  m.values = next();
  m.keys_by_rows = next();
  m.queries = {next()};
  m.gradients = {next()};
  m.queries_by_rows = next();
  m.gradients_by_rows = next();
  m.ds = {next()};
  m.transposed = next();
  m.plain = next();
  m.scores = {next(), key_tiles};
  m.dp = {next(), key_tiles};
  m.k_grad = {next(), w};
  m.v_grad = {next(), w};
  m.q_grad = {next(), w};
  m.dots = next();
  return m;
}

// plain [rows, kKeyBlock] as left panels by columns, [count, rows].
HWY_INLINE void pack_transposed(const BackwardMemory& m, std::int64_t rows, std::int64_t count) {
  pack_left_by_columns(m.plain, kKeyBlock, count, kKeyBlock, rows, m.transposed);
}

// p of a row to plain, ds to its left panel; plain becomes ds once p is packed.
void gradient_row(std::int64_t r, Visible v, std::int64_t columns, float log_sum, float dot,
                  const BackwardMemory& m) {
  const std::int64_t in_tile = r % kTileRows * kTileColumns;
  float* p = m.plain + r * kKeyBlock;
  float* ds = m.ds.panel(r) + r % kTileRows * kPanelStride;
  for (std::int64_t c = 0; c < columns; c += kLanes) {
    const Vec score = masked(load(m.scores.tile(r, c) + in_tile + c % kTileColumns), c, v);
    const Vec e = exp(hn::Sub(score, fill(log_sum)));
    const Vec dp = load(m.dp.tile(r, c) + in_tile + c % kTileColumns);
    store(e, p + c);
    // Where nothing is visible e is 0, and dp, of padding too, is finite.
    store(hn::Mul(e, hn::Sub(dp, fill(dot))), ds + c);
  }
}

template <class T>
float dot_row(const T* a, const T* b, std::int64_t width) {
  Vec sums = hn::Zero(kF32Tag);
  for (std::int64_t d = 0; d < width; d += kLanes) {
    const std::size_t count = part_of(width, d);
    sums = hn::MulAdd(load_part(a + d, count), load_part(b + d, count), sums);
  }
  return hn::GetLane(hn::SumOfLanes(kF32Tag, sums));
}

// Written in the inputs' dtype, or added in f32.
template <bool kAdded, class Out>
void store_tiles(Tiles tiles, std::int64_t first, std::int64_t rows, std::int64_t width,
                 float scale, Out* to, std::int64_t stride) {
  for (std::int64_t r = 0; r < rows; ++r) {
    const std::int64_t row = first + r;
    for (std::int64_t d = 0; d < width; d += kLanes) {
      const Vec value =
          load(tiles.tile(row, d) + row % kTileRows * kTileColumns + d % kTileColumns);
      Out* at = to + r * stride + d;
      const std::size_t count = part_of(width, d);
      Vec result = hn::Mul(value, fill(scale));
      if (kAdded) result = hn::Add(load_part(at, count), result);
      store_part(result, at, count);
    }
  }
}

// What a task reads and writes.
struct BackwardArguments {
  const AttentionShape& s;
  const HeadsView &q, &k, &v, &out, &out_grad;
  const float* log_sums;
  const AttentionGradients& gradients;
};

// One block of queries against the block of keys [begin, begin + count) that m holds.
template <class T>
void backward_block(const BackwardArguments& a, const BackwardMemory& m, Head head, std::int64_t t0,
                    std::int64_t begin, std::int64_t count) {
  const AttentionShape& s = a.s;
  const std::int64_t rows = std::min(kQueryBlock, s.queries - t0), D = s.head_width;
  const std::int64_t in_group = head.head % (s.heads / s.kv_heads);
  const std::int64_t row0 = in_group * padded_queries(s) + t0;
  const std::int64_t padded = (count + kTileColumns - 1) / kTileColumns * kTileColumns;
  const T* q = head.at<const T>(a.q, head.head, t0);
  const T* gradient = head.at<const T>(a.out_grad, head.head, t0);
  pack_rows(q, a.q.token_stride, rows, D, s.scale, m.queries);
  pack_rows(gradient, a.out_grad.token_stride, rows, D, 1.0F, m.gradients);
  pack_right_by_rows(q, a.q.token_stride, D, rows, m.queries_by_rows);
  pack_right_by_rows(gradient, a.out_grad.token_stride, D, rows, m.gradients_by_rows);

  multiply_block<true>(rows, count, D, m.queries.data, m.keys, m.scores, true);
  multiply_block<true>(rows, count, D, m.gradients.data, m.values, m.dp, true);
  const float* log_sums = a.log_sums + (head.sequence * s.heads + head.head) * s.queries + t0;
  for (std::int64_t r = 0; r < rows; ++r) {
    // A query that sees nothing gives nothing: e^(score - infinity).
    const float log_sum = log_sums[r] == kMinusInfinity ? -kMinusInfinity : log_sums[r];
    gradient_row(r, visible(s, head.sequence, t0 + r, begin, count), padded, log_sum,
                 m.dots[row0 + r], m);
  }
  pack_transposed(m, rows, count);
  multiply_block<false>(count, D, rows, m.transposed, m.gradients_by_rows, m.v_grad, false);
  for (std::int64_t r = 0; r < rows; ++r) {
    std::copy_n(m.ds.panel(r) + r % kTileRows * kPanelStride, padded, m.plain + r * kKeyBlock);
  }
  pack_transposed(m, rows, count);
  multiply_block<false>(count, D, rows, m.transposed, m.queries_by_rows, m.k_grad, false);
  const Tiles q_grad{m.q_grad.tile(row0, 0), m.q_grad.column_tiles};
  multiply_block<true>(rows, D, count, m.ds.data, m.keys_by_rows, q_grad, false);
}

// Sequence and kv head of a task.
template <class T, bool kAdded>
void backward_head(const BackwardArguments& a, Head kv) {
  using Out = std::conditional_t<kAdded, float, T>;
  const AttentionShape& s = a.s;
  const std::int64_t D = s.head_width, group = s.heads / s.kv_heads, w = width_tiles(s);
  const BackwardMemory m = backward_memory(s);
  std::fill_n(m.q_grad.data, tile_floats(group * padded_queries(s), w), 0.0F);
  for (std::int64_t h = 0; h < group; ++h) {
    for (std::int64_t t = 0; t < s.queries; ++t) {
      m.dots[h * padded_queries(s) + t] =
          dot_row(kv.at<const T>(a.out, kv.head * group + h, t),
                  kv.at<const T>(a.out_grad, kv.head * group + h, t), D);
    }
  }
  for (std::int64_t begin = 0; begin < s.keys; begin += kKeyBlock) {
    const std::int64_t count = std::min(kKeyBlock, s.keys - begin);
    const T* k = kv.at<const T>(a.k, kv.head, begin);
    pack_keys(k, a.k.token_stride, count, D, m.keys);
    pack_keys(kv.at<const T>(a.v, kv.head, begin), a.v.token_stride, count, D, m.values);
    pack_right_by_rows(k, a.k.token_stride, D, count, m.keys_by_rows);
    std::fill_n(m.k_grad.data, tile_floats(kKeyBlock, w), 0.0F);
    std::fill_n(m.v_grad.data, tile_floats(kKeyBlock, w), 0.0F);
    for (std::int64_t h = 0; h < group; ++h) {
      for (std::int64_t t0 = 0; t0 < s.queries; t0 += kQueryBlock) {
        const std::int64_t last = std::min(s.queries, t0 + kQueryBlock) - 1;
        if (begin >= end_key(s) + last) continue;  // all keys lie ahead
        if (first_key_of(s, kv.sequence, t0, last + 1 - t0) >= begin + count) continue;
        backward_block<T>(a, m, {kv.sequence, kv.head * group + h}, t0, begin, count);
      }
    }
    store_tiles<kAdded>(m.v_grad, 0, count, D, 1.0F, kv.at<Out>(a.gradients.v, kv.head, begin),
                        a.gradients.v.token_stride);
    store_tiles<kAdded>(m.k_grad, 0, count, D, s.scale, kv.at<Out>(a.gradients.k, kv.head, begin),
                        a.gradients.k.token_stride);
  }
  for (std::int64_t h = 0; h < group; ++h) {
    store_tiles<kAdded>(m.q_grad, h * padded_queries(s), s.queries, D, s.scale,
                        kv.at<Out>(a.gradients.q, kv.head * group + h, 0),
                        a.gradients.q.token_stride);
  }
}

void backward_task(const AttentionShape& s, const HeadsView& q, const HeadsView& k,
                   const HeadsView& v, const HeadsView& out, const HeadsView& out_grad,
                   const float* log_sums, const AttentionGradients& gradients, bool added,
                   std::int64_t task) {
  const BackwardArguments arguments{s, q, k, v, out, out_grad, log_sums, gradients};
  const Head kv{task / s.kv_heads, task % s.kv_heads};
  const auto one_of = [&]<class T>(T) {
    return added ? backward_head<T, true> : backward_head<T, false>;
  };
  const auto one = s.element == Element::kF32 ? one_of(float{}) : one_of(Bf16{});
  one(arguments, kv);
}

}  // namespace trireme::ops::HWY_NAMESPACE
HWY_AFTER_NAMESPACE();

#if HWY_ONCE
namespace trireme::ops {
namespace {

HWY_EXPORT(forward_task);
HWY_EXPORT(forward_tasks);
HWY_EXPORT(backward_task);

void forward(const AttentionShape& shape, const HeadsView& q, const HeadsView& k,
             const HeadsView& v, const HeadsView& out, float* log_sums, bool added) {
  const auto one = HWY_DYNAMIC_DISPATCH(forward_task);
  run_tasks(HWY_DYNAMIC_DISPATCH(forward_tasks)(shape),
            [&](std::int64_t task) { one(shape, q, k, v, out, log_sums, added, task); });
}

void backward(const AttentionShape& shape, const HeadsView& q, const HeadsView& k,
              const HeadsView& v, const HeadsView& out, const HeadsView& out_grad,
              const float* log_sums, const AttentionGradients& gradients, bool added) {
  const auto one = HWY_DYNAMIC_DISPATCH(backward_task);
  run_tasks(shape.sequences * shape.kv_heads, [&](std::int64_t task) {
    one(shape, q, k, v, out, out_grad, log_sums, gradients, added, task);
  });
}

}  // namespace

void attention_forward(const AttentionShape& shape, const HeadsView& q, const HeadsView& k,
                       const HeadsView& v, const HeadsView& out, float* log_sums) {
  forward(shape, q, k, v, out, log_sums, false);
}

void attention_forward_added(const AttentionShape& shape, const HeadsView& q, const HeadsView& k,
                             const HeadsView& v, const HeadsView& out, float* log_sums) {
  forward(shape, q, k, v, out, log_sums, true);
}

void attention_backward(const AttentionShape& shape, const HeadsView& q, const HeadsView& k,
                        const HeadsView& v, const HeadsView& out, const HeadsView& out_grad,
                        const float* log_sums, const AttentionGradients& gradients) {
  backward(shape, q, k, v, out, out_grad, log_sums, gradients, false);
}

void attention_backward_added(const AttentionShape& shape, const HeadsView& q, const HeadsView& k,
                              const HeadsView& v, const HeadsView& out, const HeadsView& out_grad,
                              const float* log_sums, const AttentionGradients& gradients) {
  backward(shape, q, k, v, out, out_grad, log_sums, gradients, true);
}

double visible_pairs(const AttentionShape& s) {
  std::int64_t pairs = 0;
  for (std::int64_t b = 0; b < s.sequences; ++b) {
    for (std::int64_t t = 0; t < s.queries; ++t) {
      const std::int64_t first = std::max(first_visible(s, b, t), s.key_begin);
      const std::int64_t end = std::min(s.query_begin + t + 1, s.key_begin + s.keys);
      pairs += std::max<std::int64_t>(0, end - first);
    }
  }
  return static_cast<double>(pairs);
}

}  // namespace trireme::ops
#endif
