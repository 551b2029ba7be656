// Copyright 2026 The Trireme authors
// SPDX-License-Identifier: Apache-2.0

#include "trireme/ops/kernels/matrix_kernels.h"

#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "trireme/ops/kernels/matrix_kernels.cc"
#include <hwy/foreach_target.h>
// After it:
#include <chrono>

#include "trireme/ops/kernels/matrix_kernels-inl.h"
#include "trireme/ops/kernels/tasks.h"

HWY_BEFORE_NAMESPACE();
namespace trireme::ops::HWY_NAMESPACE {

using detail::ProductTask;
using Kind = Epilogue::Kind;

// One vector of the product, at element `at` of the epilogue's matrices and `column` of the bias.
template <class T, Kind kKind>
HWY_INLINE void finish_vector(const Epilogue& e, Vec p, std::int64_t at, std::int64_t column,
                              std::size_t count) {
  T* out = static_cast<T*>(e.out) + at;
  T* second_out = static_cast<T*>(e.second_out) + at;
  const T* first_in = static_cast<const T*>(e.first_in) + at;
  const T* second_in = static_cast<const T*>(e.second_in) + at;
  if constexpr (kKind == Kind::kStore || kKind == Kind::kGelu) {
    if (e.bias != nullptr) {
      p = hn::Add(p, load_part(static_cast<const T*>(e.bias) + column, count));
    }
  }
  if constexpr (kKind == Kind::kStore) {
    store_part(p, out, count);
  } else if constexpr (kKind == Kind::kAdd) {
    store_part(hn::Add(load_part(out, count), p), out, count);
  } else if constexpr (kKind == Kind::kGelu) {
    store_part(p, second_out, count);
    store_part(gelu(rounded_to<T>(p)), out, count);
  } else if constexpr (kKind == Kind::kGeluGradient) {
    store_part(hn::Mul(p, gelu_derivative(load_part(first_in, count))), out, count);
  } else if constexpr (kKind == Kind::kSwiglu) {
    store_part(p, second_out, count);
    store_part(hn::Mul(silu(load_part(first_in, count)), rounded_to<T>(p)), out, count);
  } else {
    const Vec gate = load_part(first_in, count), up = load_part(second_in, count);
    store_part(hn::Mul(hn::Mul(p, up), silu_derivative(gate)), out, count);
    store_part(hn::Mul(p, silu(gate)), second_out, count);
  }
}

using Finish = void (*)(const Epilogue&, const float*, std::int64_t, std::int64_t, std::int64_t,
                        std::int64_t);

// The first rows x columns of a tile, which stands at (row, column) of the product.
template <class T, Kind kKind>
void finish_tile(const Epilogue& e, const float* tile, std::int64_t row, std::int64_t column,
                 std::int64_t rows, std::int64_t columns) {
  for (std::int64_t r = 0; r < rows; ++r, tile += kTileColumns) {
    const std::int64_t at = (row + r) * e.stride + column;
    for (std::int64_t c = 0; c < columns; c += kLanes) {
      finish_vector<T, kKind>(e, load(tile + c), at + c, column + c,
                              std::min<std::int64_t>(kLanes, columns - c));
    }
  }
}

template <class T>
Finish finish_of(Kind kind) {
  switch (kind) {
    case Kind::kStore:
      return finish_tile<T, Kind::kStore>;
    case Kind::kAdd:
      return finish_tile<T, Kind::kAdd>;
    case Kind::kGelu:
      return finish_tile<T, Kind::kGelu>;
    case Kind::kGeluGradient:
      return finish_tile<T, Kind::kGeluGradient>;
    case Kind::kSwiglu:
      return finish_tile<T, Kind::kSwiglu>;
    case Kind::kSwigluGradient:
      return finish_tile<T, Kind::kSwigluGradient>;
  }
  return nullptr;
}

Finish finish_of(const Epilogue& epilogue) {
  return epilogue.element == Element::kF32 ? finish_of<float>(epilogue.kind)
                                           : finish_of<Bf16>(epilogue.kind);
}

// Rows [row, row + rows) of the left matrix, in panels.
template <class T>
void pack_left_panels(const MatrixView& left, std::int64_t row, std::int64_t rows, std::int64_t k,
                      std::int64_t depth, float* panels) {
  const T* from = static_cast<const T*>(left.data) + row * left.row_stride + k * left.column_stride;
  if (left.column_stride != 1) {
    pack_left_by_columns(from, left.column_stride, rows, left.rows - row, depth, panels);
    return;
  }
  for (std::int64_t r = 0; r < rows; r += kTileRows, panels += kLeftPanel) {
    pack_left_by_rows(from + r * left.row_stride, left.row_stride,
                      std::min<std::int64_t>(kTileRows, rows - r), depth, panels);
  }
}

// Columns [column, column + columns) of the right matrix, in panels.
template <class T>
void pack_right_panels(const MatrixView& right, std::int64_t column, std::int64_t columns,
                       std::int64_t k, std::int64_t depth, float* panels) {
  const T* from =
      static_cast<const T*>(right.data) + k * right.row_stride + column * right.column_stride;
  if (right.column_stride == 1) {
    pack_right_by_rows(from, right.row_stride, columns, depth, panels);
    return;
  }
  for (std::int64_t c = 0; c < columns;
       c += kTileColumns, panels += right_panel(steps_of<T>(depth))) {
    pack_right_by_columns(from + c * right.column_stride, right.column_stride,
                          std::min(kTileColumns, columns - c), depth, panels);
  }
}

// Scratch memory of a task and where its tiles lie.
struct TaskMemory {
  float* left;
  float* right;
  float* tiles;  // all of the task's, or one when the inner dim is not cut
  bool one_tile;
};

TaskMemory task_memory(const ProductTask& task, std::int64_t row_panels,
                       std::int64_t column_panels) {
  const auto floats = [](Scratch slot, std::int64_t count) {
    return static_cast<float*>(
        thread_scratch(slot, static_cast<std::size_t>(count) * sizeof(float)));
  };
  TaskMemory memory{};
  memory.one_tile = task.left.columns <= task.depth;
  memory.left = floats(Scratch::kLeft, task.rows / kTileRows * kLeftPanel);
  memory.right = floats(Scratch::kRight, column_panels * right_panel(task.depth));
  memory.tiles =
      floats(Scratch::kTiles, kTileSize * (memory.one_tile ? 1 : row_panels * column_panels));
  return memory;
}

// The kernels that the element types ask for.
struct Kernels {
  void (*pack_left)(const MatrixView&, std::int64_t, std::int64_t, std::int64_t, std::int64_t,
                    float*);
  void (*pack_right)(const MatrixView&, std::int64_t, std::int64_t, std::int64_t, std::int64_t,
                     float*);
  void (*multiply)(std::int64_t, std::int64_t, const float*, const float*, float*, bool);
  std::int64_t per_step;
};

Kernels kernels_of(const ProductTask& task) {
  const bool by_rows = task.left.column_stride == 1;
  if (task.pairs) {
    return {pack_left_panels<Bf16Pair>, pack_right_panels<Bf16Pair>,
            by_rows ? multiply_rows<true, true> : multiply_rows<false, true>, kPerLane<Bf16Pair>};
  }
  const bool left_f32 = task.left.element == Element::kF32;
  const bool right_f32 = task.right.element == Element::kF32;
  return {left_f32 ? pack_left_panels<float> : pack_left_panels<Bf16>,
          right_f32 ? pack_right_panels<float> : pack_right_panels<Bf16>,
          by_rows ? multiply_rows<true> : multiply_rows<false>, 1};
}

void run_product_task(const ProductTask& task) {
  const Kernels kernels = kernels_of(task);
  const Finish finish = finish_of(task.epilogue);
  const std::int64_t row_panels =
      hwy::DivCeil(task.row_end - task.row_begin, std::int64_t{kTileRows});
  const std::int64_t column_panels =
      hwy::DivCeil(task.column_end - task.column_begin, kTileColumns);
  const std::int64_t block_panels = task.rows / kTileRows;
  const std::int64_t inner = task.left.columns;
  const TaskMemory memory = task_memory(task, row_panels, column_panels);
  const auto row_of = [&](std::int64_t r) { return task.row_begin + r * kTileRows; };

  for (std::int64_t k = 0; k == 0 || k < inner; k += task.depth) {
    const std::int64_t depth = std::min(task.depth, inner - k);
    const std::int64_t steps = hwy::DivCeil(depth, kernels.per_step);
    kernels.pack_right(task.right, task.column_begin, task.column_end - task.column_begin, k, depth,
                       memory.right);
    for (std::int64_t first = 0; first < row_panels; first += block_panels) {
      const std::int64_t end = std::min(row_panels, first + block_panels);
      kernels.pack_left(task.left, row_of(first),
                        std::min(task.row_end, row_of(end)) - row_of(first), k, depth, memory.left);
      // A right panel stays in the first-level cache while the left ones stream past it.
      for (std::int64_t c = 0; c < column_panels; ++c) {
        const std::int64_t column = task.column_begin + c * kTileColumns;
        for (std::int64_t r = first; r < end; ++r) {
          const std::int64_t rows = std::min<std::int64_t>(kTileRows, task.row_end - row_of(r));
          float* tile = memory.tiles + (memory.one_tile ? 0 : (c * row_panels + r) * kTileSize);
          kernels.multiply(rows, steps, memory.left + (r - first) * kLeftPanel,
                           memory.right + c * right_panel(steps), tile, k == 0);
          if (k + depth < inner) continue;
          finish(task.epilogue, tile, row_of(r), column, rows,
                 std::min(kTileColumns, task.column_end - column));
        }
      }
    }
  }
}

// Dot products of one row of the left matrix with four columns of the right one.
template <class Left, class Right>
HWY_INLINE void dot_four(const Left* left, const Right* const (&right)[4], std::int64_t depth,
                         float* to) {
  Vec sums[4] = {hn::Zero(kF32Tag), hn::Zero(kF32Tag), hn::Zero(kF32Tag), hn::Zero(kF32Tag)};
  for (std::int64_t k = 0; k < depth; k += kLanes) {
    const std::size_t count = part_of(depth, k);
    const Vec value = load_part(left + k, count);
#pragma GCC unroll 4
    for (int i = 0; i < 4; ++i) {
      sums[i] = hn::MulAdd(value, load_part(right[i] + k, count), sums[i]);
    }
  }
  for (int i = 0; i < 4; ++i) to[i] = hn::GetLane(hn::SumOfLanes(kF32Tag, sums[i]));
}

template <class Left, class Right>
void run_thin(const ProductTask& task, Finish finish) {
  const auto* left = static_cast<const Left*>(task.left.data);
  const auto* right = static_cast<const Right*>(task.right.data);
  HWY_ALIGN float tile[kTileSize] = {};
  for (std::int64_t column = task.column_begin; column < task.column_end; column += kTileColumns) {
    const std::int64_t columns = std::min(kTileColumns, task.column_end - column);
    for (std::int64_t c = 0; c < columns; c += 4) {
      const Right* four[4];  // past the end the last one again, which nobody reads
      for (std::int64_t i = 0; i < 4; ++i) {
        four[i] = right + (column + std::min(c + i, columns - 1)) * task.right.column_stride;
      }
      for (std::int64_t r = 0; r < task.left.rows; ++r) {
        dot_four(left + r * task.left.row_stride, four, task.left.columns,
                 tile + r * kTileColumns + c);
      }
    }
    finish(task.epilogue, tile, 0, column, task.left.rows, columns);
  }
}

void run_thin_task(const ProductTask& task) {
  const Finish finish = finish_of(task.epilogue);
  const bool left_f32 = task.left.element == Element::kF32;
  const bool right_f32 = task.right.element == Element::kF32;
  const auto run = left_f32 ? (right_f32 ? run_thin<float, float> : run_thin<float, Bf16>)
                            : (right_f32 ? run_thin<Bf16, float> : run_thin<Bf16, Bf16>);
  run(task, finish);
}

double now_seconds() {
  return std::chrono::duration<double>(std::chrono::steady_clock::now().time_since_epoch()).count();
}

// The time that this thread takes for a fixed number of instructions on data in the first-level
// cache, a few microseconds.
template <bool kPairs>
double seconds_of_panels() {
  constexpr std::int64_t kSteps = 64, kRepeats = 20;
  HWY_ALIGN float left[kTileRows * kPanelStride] = {};
  HWY_ALIGN float right[kSteps * kTileColumns] = {};
  HWY_ALIGN float tile[kTileSize];
  const double begin = now_seconds();
  for (std::int64_t i = 0; i < kRepeats; ++i) {
    multiply_panels<kTileRows, true, kPairs>(kSteps, left, right, tile, i == 0);
  }
  return now_seconds() - begin;
}

#if HWY_TARGET <= HWY_AVX3 && HWY_ARCH_X86
bool may_have_bf16_dot() { return true; }
// By turns, the least of each: whatever else happens on the machine meanwhile meets both, and all
// ranks come to the same.
double bf16_dot_seconds_per_f32() {
  constexpr int kTurns = 50;
  double pairs = 1e9, f32 = 1e9;
  for (int turn = 0; turn < kTurns; ++turn) {
    pairs = std::min(pairs, seconds_of_panels<true>());
    f32 = std::min(f32, seconds_of_panels<false>());
  }
  return pairs / f32;
}
#else
bool may_have_bf16_dot() { return false; }
double bf16_dot_seconds_per_f32() { return 0; }
#endif

template <class T>
void add_sums(const MatrixView& values, std::int64_t begin, std::int64_t end, float* sums) {
  constexpr std::int64_t kBlock = 64;
  const T* data = static_cast<const T*>(values.data);
  for (std::int64_t c = begin; c < end; c += kLanes) {
    const std::size_t count = std::min<std::int64_t>(kLanes, end - c);
    Vec total = load_part(sums + c, count);
    for (std::int64_t block = 0; block < values.rows; block += kBlock) {
      const std::int64_t stop = std::min(values.rows, block + kBlock);
      Vec sum = hn::Zero(kF32Tag);
      for (std::int64_t r = block; r < stop; ++r) {
        sum = hn::Add(sum, load_part(data + r * values.row_stride + c, count));
      }
      total = hn::Add(total, sum);
    }
    store_part(total, sums + c, count);
  }
}

void add_column_sums_of(const MatrixView& values, std::int64_t begin, std::int64_t end,
                        float* sums) {
  values.element == Element::kF32 ? add_sums<float>(values, begin, end, sums)
                                  : add_sums<Bf16>(values, begin, end, sums);
}

detail::TileShape tile_shape() { return {kTileRows, kTileColumns}; }

}  // namespace trireme::ops::HWY_NAMESPACE
HWY_AFTER_NAMESPACE();

#if HWY_ONCE
namespace trireme::ops::detail {
namespace {

HWY_EXPORT(run_product_task);
HWY_EXPORT(run_thin_task);
HWY_EXPORT(add_column_sums_of);
HWY_EXPORT(tile_shape);
HWY_EXPORT(may_have_bf16_dot);
HWY_EXPORT(bf16_dot_seconds_per_f32);

}  // namespace

TileShape tile_shape() { return HWY_DYNAMIC_DISPATCH(tile_shape)(); }
void run_product_task(const ProductTask& task) { HWY_DYNAMIC_DISPATCH(run_product_task)(task); }
void run_thin_task(const ProductTask& task) { HWY_DYNAMIC_DISPATCH(run_thin_task)(task); }
bool has_bf16_dot() {
#if defined(__x86_64__)
  static const bool in_processor = [] {
    __builtin_cpu_init();
    return __builtin_cpu_supports("avx512bf16") != 0;
  }();
  return in_processor && HWY_DYNAMIC_DISPATCH(may_have_bf16_dot)();
#else
  return false;
#endif
}
double bf16_dot_seconds_per_f32() { return HWY_DYNAMIC_DISPATCH(bf16_dot_seconds_per_f32)(); }
void add_column_sums_of(const MatrixView& values, std::int64_t begin, std::int64_t end,
                        float* sums) {
  HWY_DYNAMIC_DISPATCH(add_column_sums_of)(values, begin, end, sums);
}

}  // namespace trireme::ops::detail
#endif
