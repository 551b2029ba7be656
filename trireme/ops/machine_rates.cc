// Copyright 2026 The Trireme authors
// SPDX-License-Identifier: Apache-2.0

#include "trireme/ops/machine_rates.h"

#include <ATen/Parallel.h>
#include <c10/util/BFloat16.h>
#include <unistd.h>

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <iterator>
#include <memory>
#include <oneapi/dnnl/dnnl.hpp>
#include <unordered_map>
#include <vector>

#include "trireme/base/check.h"
#include "trireme/base/error.h"

namespace trireme {
namespace {

using Clock = std::chrono::steady_clock;
using dnnl::memory;

// Rows x inner dim x columns of the products of a transformer layer: attention's projections, the
// MLP's up and down, at two widths.
struct Shape {
  std::int64_t m, k, n;
};
constexpr Shape kShapes[] = {
    {1024, 768, 768}, {1024, 768, 3072}, {1024, 3072, 768}, {2048, 1024, 4096}};

// Small whole numbers, so that every product is exact in both dtypes; distinct along rows and
// columns.
float left_value(std::int64_t row, std::int64_t inner) {
  return static_cast<float>((row * 3 + inner * 5) % 7 - 3);
}
float right_value(std::int64_t inner, std::int64_t column) {
  return static_cast<float>((inner * 2 + column * 3) % 5 - 2);
}

template <class Value>
std::vector<Value> filled(std::int64_t rows, std::int64_t columns,
                          float (*value)(std::int64_t, std::int64_t)) {
  std::vector<Value> matrix(static_cast<std::size_t>(rows * columns));
  at::parallel_for(0, rows, 16, [&](std::int64_t begin, std::int64_t end) {
    for (std::int64_t r = begin; r < end; ++r) {
      for (std::int64_t c = 0; c < columns; ++c) {
        matrix[static_cast<std::size_t>(r * columns + c)] = Value(value(r, c));
      }
    }
  });
  return matrix;
}

// One product C = A B with its operands.
template <class Value>
class Product {
 public:
  Product(const Shape& shape, memory::data_type type)
      : shape_(shape),
        a_(filled<Value>(shape.m, shape.k, left_value)),
        b_(filled<Value>(shape.k, shape.n, right_value)),
        c_(static_cast<std::size_t>(shape.m * shape.n)),
        engine_(dnnl::engine::kind::cpu, 0),
        stream_(engine_) {
    const auto describe = [&](std::int64_t rows, std::int64_t columns) {
      return memory::desc({rows, columns}, type, memory::format_tag::ab);
    };
    const auto a = describe(shape.m, shape.k), b = describe(shape.k, shape.n),
               c = describe(shape.m, shape.n);
    const dnnl::matmul::primitive_desc description(dnnl::matmul::desc(a, b, c), engine_);
    matmul_ = dnnl::matmul(description);
    arguments_ = {{DNNL_ARG_SRC, memory(a, engine_, a_.data())},
                  {DNNL_ARG_WEIGHTS, memory(b, engine_, b_.data())},
                  {DNNL_ARG_DST, memory(c, engine_, c_.data())}};
    run();
    verify();
  }

  void run() {
    matmul_.execute(stream_, arguments_);
    stream_.wait();
  }

  double flops() const {
    return 2.0 * static_cast<double>(shape_.m) * static_cast<double>(shape_.k) *
           static_cast<double>(shape_.n);
  }

 private:
  // A rate of wrong results is worth nothing: compares a scattering of elements.
  void verify() const {
    constexpr std::int64_t kSamples = 61;
    for (std::int64_t sample = 0; sample < kSamples; ++sample) {
      const std::int64_t row = sample * 7919 % shape_.m, column = sample * 104729 % shape_.n;
      float expected = 0.0F;
      for (std::int64_t i = 0; i < shape_.k; ++i) {
        expected += left_value(row, i) * right_value(i, column);
      }
      const auto got = static_cast<float>(c_[static_cast<std::size_t>(row * shape_.n + column)]);
      TRIREME_CHECK_EQ(got, static_cast<float>(Value(expected)),
                       "oneDNN's product of {} x {} x {} at ({}, {})", shape_.m, shape_.k, shape_.n,
                       row, column);
    }
  }

  Shape shape_;
  std::vector<Value> a_, b_, c_;
  dnnl::engine engine_;
  dnnl::stream stream_;
  dnnl::matmul matmul_;
  std::unordered_map<int, memory> arguments_;
};

template <class Value>
double best_rate(memory::data_type type, std::chrono::milliseconds budget) {
  double best = 0.0;
  for (const Shape& shape : kShapes) {
    Product<Value> product(shape, type);
    const auto end = Clock::now() + budget / std::size(kShapes);
    do {
      const auto start = Clock::now();
      product.run();
      const std::chrono::duration<double> seconds = Clock::now() - start;
      best = std::max(best, product.flops() / seconds.count());
    } while (Clock::now() < end);
  }
  return best;
}

// Elements of each of three f32 arrays: together three times the last cache where memory allows,
// and a sixteenth of the free memory at most.
std::int64_t stream_elements() {
  constexpr std::int64_t kLeastBytes = std::int64_t{64} << 20;
  const std::int64_t cache_bytes = sysconf(_SC_LEVEL3_CACHE_SIZE);
  const std::int64_t free_bytes =
      std::int64_t{sysconf(_SC_AVPHYS_PAGES)} * std::int64_t{sysconf(_SC_PAGESIZE)};
  const std::int64_t wanted = std::max(kLeastBytes, cache_bytes);
  return std::min(wanted, std::max(kLeastBytes / 4, free_bytes / 16)) / 4;
}

}  // namespace

double measure_gemm_flops_per_s(at::ScalarType dtype, std::chrono::milliseconds budget) {
  try {
    switch (dtype) {
      case at::kFloat:
        return best_rate<float>(memory::data_type::f32, budget);
      case at::kBFloat16:
        return best_rate<c10::BFloat16>(memory::data_type::bf16, budget);
      default:
        throw_error<ShapeError>("matrix products are measured in f32 or bf16, not in {}",
                                c10::toString(dtype));
    }
  } catch (const dnnl::error& error) {
    throw_error<Error>("oneDNN cannot multiply matrices of {} on this processor: {}",
                       c10::toString(dtype), error.what());
  }
}

double measure_memory_bytes_per_s(std::chrono::milliseconds budget) {
  const std::int64_t count = stream_elements();
  const auto size = static_cast<std::size_t>(count);
  // Not initialised here: each page belongs to the thread that first writes it.
  const std::unique_ptr<float[]> a(new float[size]), b(new float[size]), c(new float[size]);
  const auto for_all = [&](const auto& body) {
    at::parallel_for(0, count, count / at::get_num_threads() + 1, body);
  };
  for_all([&](std::int64_t begin, std::int64_t end) {
    for (std::int64_t i = begin; i < end; ++i) {
      a[static_cast<std::size_t>(i)] = static_cast<float>(i % 1024);
      b[static_cast<std::size_t>(i)] = 0.5F;
      c[static_cast<std::size_t>(i)] = 0.0F;
    }
  });
  double best = 0.0;
  const auto finish = Clock::now() + budget;
  do {
    const auto start = Clock::now();
    for_all([&](std::int64_t begin, std::int64_t end) {
      const float* __restrict left = a.get();
      const float* __restrict right = b.get();
      float* __restrict sum = c.get();
      for (std::int64_t i = begin; i < end; ++i) {
        sum[i] = left[i] + right[i];
      }
    });
    const std::chrono::duration<double> seconds = Clock::now() - start;
    best = std::max(best, 3.0 * sizeof(float) * static_cast<double>(count) / seconds.count());
  } while (Clock::now() < finish);
  TRIREME_CHECK_EQ(c[size - 1], static_cast<float>((count - 1) % 1024) + 0.5F, "the stream's sums");
  return best;
}

}  // namespace trireme
