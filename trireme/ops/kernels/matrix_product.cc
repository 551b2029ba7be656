// Copyright 2026 The Trireme authors
// SPDX-License-Identifier: Apache-2.0

#include "trireme/ops/kernels/matrix_product.h"

#include <unistd.h>

#include <algorithm>
#include <atomic>
#include <iterator>
#include <vector>

#include "trireme/base/check.h"
#include "trireme/ops/kernels/matrix_kernels.h"
#include "trireme/ops/kernels/tasks.h"

namespace trireme::ops {
namespace {

using detail::kMaxDepth;
using detail::ProductTask;
using detail::TileShape;

std::int64_t div_up(std::int64_t a, std::int64_t b) { return (a + b - 1) / b; }
std::int64_t round_up(std::int64_t a, std::int64_t b) { return div_up(a, b) * b; }

std::int64_t second_level_cache_bytes() {
  constexpr std::int64_t kLeast = std::int64_t{256} << 10;
  static const std::int64_t bytes = std::max<std::int64_t>(kLeast, sysconf(_SC_LEVEL2_CACHE_SIZE));
  return bytes;
}

// How a product is cut. None of it shows in the result.
struct Blocking {
  std::int64_t depth = 0;      // of the inner dim that is packed at a time
  std::int64_t rows = 0;       // of the left matrix that are packed at a time
  std::int64_t task_rows = 0;  // of the product that a task computes
  std::int64_t task_columns = 0;
};

// Costs in multiply-adds of one core, for choosing only: a vector of 16 is packed in the time of 4
// to 8 multiply-adds of it when it is transposed, of 2 when copied; a task starts in about a
// microsecond.
constexpr double kCopyCost = 32, kTransposeCost = 96, kTaskCost = 50'000;

double cost_of(const Blocking& b, const MatrixView& left, const MatrixView& right, int threads) {
  const std::int64_t tasks = div_up(left.rows, b.task_rows) * div_up(right.columns, b.task_columns);
  const auto rows = static_cast<double>(b.task_rows), columns = static_cast<double>(b.task_columns);
  const double right_cost = right.column_stride == 1 ? kCopyCost : kTransposeCost;
  const double task = static_cast<double>(left.columns) *
                          (rows * columns + right_cost * columns + kCopyCost * rows) +
                      kTaskCost;
  return static_cast<double>(div_up(tasks, threads)) * task;
}

Blocking choose_blocking(const MatrixView& left, const MatrixView& right, int threads) {
  constexpr std::int64_t kMostTiles = 1 << 20;  // floats of partial sums: 4 MiB
  const TileShape tile = detail::tile_shape();
  const std::int64_t cache_floats = second_level_cache_bytes() / 4;
  Blocking best;
  best.depth = std::min(kMaxDepth, std::max<std::int64_t>(1, left.columns));
  if (left.columns > best.depth) {  // in equal parts
    best.depth = round_up(div_up(left.columns, div_up(left.columns, best.depth)), 2);
  }
  // A third of the cache for what is packed of the left matrix, a third for the right one's.
  const std::int64_t most = std::max(tile.columns, cache_floats / 3 / best.depth);
  best.rows = std::max(tile.rows, most / tile.rows * tile.rows);
  const bool cut = left.columns > best.depth;
  double least = -1;
  for (std::int64_t columns = tile.columns; columns <= round_up(most, tile.columns);
       columns += tile.columns) {
    const std::int64_t rows_at_most = cut ? std::max(tile.rows, kMostTiles / columns) : left.rows;
    for (std::int64_t parts = div_up(left.rows, rows_at_most);; parts *= 2) {
      Blocking b = best;
      b.task_rows = round_up(div_up(left.rows, parts), tile.rows);
      b.task_columns = columns;
      const double cost = cost_of(b, left, right, threads);
      if (least < 0 || cost < least) {
        least = cost;
        best = b;
      }
      if (parts * tile.rows * 4 >= left.rows) break;
    }
    if (columns >= right.columns) break;
  }
  // Rows that are packed at a time: the task's in equal parts.
  best.rows = round_up(div_up(best.task_rows, div_up(best.task_rows, best.rows)), tile.rows);
  return best;
}

std::atomic<detail::Bf16Dot> bf16_dot{detail::Bf16Dot::kMeasured};

// A product as tasks that are independent of one another: [first_task, first_task + tasks) of a
// run.
struct PlannedProduct {
  ProductTask task;  // but for rows and columns
  std::int64_t task_rows = 0, task_columns = 0;
  std::int64_t row_tasks = 0;
  std::int64_t first_task = 0;
  std::int64_t tasks = 0;
  bool thin = false;

  void run(std::int64_t i) const {
    ProductTask part = task;
    part.row_begin = i % row_tasks * task_rows;
    part.row_end = std::min(task.left.rows, part.row_begin + task_rows);
    part.column_begin = i / row_tasks * task_columns;
    part.column_end = std::min(task.right.columns, part.column_begin + task_columns);
    thin ? detail::run_thin_task(part) : detail::run_product_task(part);
  }
};

// Columns of the right matrix that a task of a thin product takes.
std::int64_t thin_columns(const MatrixView& right) {
  constexpr std::int64_t kElements = 1 << 17;  // of it in a task
  const std::int64_t tile = detail::tile_shape().columns;
  const std::int64_t wanted = kElements / std::max<std::int64_t>(1, right.rows);
  return std::max(tile, wanted / tile * tile);
}

PlannedProduct plan(const Product& product, std::int64_t first_task) {
  const auto& [left, right, epilogue] = product;
  TRIREME_CHECK_EQ(left.columns, right.rows, "the inner dims of a product");
  TRIREME_CHECK_LE(1, left.rows, "rows of a product");
  TRIREME_CHECK_LE(1, right.columns, "columns of a product");
  PlannedProduct planned{.task = {.left = left, .right = right, .epilogue = epilogue}};
  planned.thin = left.rows <= kThinRows && left.column_stride == 1 && right.column_stride != 1;
  if (planned.thin) {
    planned.task_rows = left.rows;
    planned.task_columns = thin_columns(right);
  } else {
    const Blocking b = choose_blocking(left, right, task_threads());
    planned.task_rows = b.task_rows;
    planned.task_columns = b.task_columns;
    planned.task.depth = b.depth;
    planned.task.rows = b.rows;
    planned.task.pairs =
        left.element == Element::kBf16 && right.element == Element::kBf16 && bf16_dot_in_use();
  }
  planned.row_tasks = div_up(left.rows, planned.task_rows);
  planned.first_task = first_task;
  planned.tasks = planned.row_tasks * div_up(right.columns, planned.task_columns);
  return planned;
}

}  // namespace

void detail::set_bf16_dot(Bf16Dot use) { bf16_dot = use; }

bool bf16_dot_in_use() {
  constexpr double kPaysBelow = 1.5;  // times an f32 multiply-add, of which it replaces two
  if (!detail::has_bf16_dot()) return false;
  const detail::Bf16Dot use = bf16_dot;
  if (use != detail::Bf16Dot::kMeasured) return use == detail::Bf16Dot::kAlways;
  static const bool pays = detail::bf16_dot_seconds_per_f32() < kPaysBelow;
  return pays;
}

void matrix_product(const MatrixView& left, const MatrixView& right, const Epilogue& epilogue) {
  const PlannedProduct planned = plan({left, right, epilogue}, 0);
  run_tasks(planned.tasks, [&](std::int64_t i) { planned.run(i); });
}

void matrix_products(std::span<const Product> products) {
  std::vector<PlannedProduct> planned;
  std::int64_t tasks = 0;
  for (const Product& product : products) {
    planned.push_back(plan(product, tasks));
    tasks += planned.back().tasks;
  }
  run_tasks(tasks, [&](std::int64_t i) {
    const auto after = std::upper_bound(
        planned.begin(), planned.end(), i,
        [](std::int64_t task, const PlannedProduct& each) { return task < each.first_task; });
    const PlannedProduct& product = *std::prev(after);
    product.run(i - product.first_task);
  });
}

void add_column_sums(const MatrixView& values, float* sums) {
  constexpr std::int64_t kGrain = 128;
  run_ranges(values.columns, kGrain, [&](std::int64_t begin, std::int64_t end) {
    detail::add_column_sums_of(values, begin, end, sums);
  });
}

}  // namespace trireme::ops
