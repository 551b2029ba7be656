// Copyright 2026 The Trireme authors
// SPDX-License-Identifier: Apache-2.0

#include "tests/fakes/cuda_on_host.h"
// The text under test:
#include "trireme/ops/cuda/epilogue_kernels.cu"
// After it:
#include <fmt/format.h>
#include <gtest/gtest.h>

#include "tests/cuda/device_data.h"

namespace trireme::testing {
namespace {

using ops::cuda::Stream;
using Kind = ops::Epilogue::Kind;

constexpr double kTolerance = 1e-6;  // of e^x: within 2 ulp here and there

constexpr Kind kKinds[] = {Kind::kStore,        Kind::kAdd,    Kind::kGelu,
                           Kind::kGeluGradient, Kind::kSwiglu, Kind::kSwigluGradient};

struct Case {
  Kind kind = Kind::kStore;
  Element product = Element::kF32, element = Element::kF32;
  std::int64_t rows = 0, columns = 0;
  std::int64_t gap = 0;  // between the rows of the epilogue's matrices
  std::int64_t offset = 0;
  bool bias = false;

  std::string name() const {
    return fmt::format("kind {}, {} -> {} bytes, {} x {} + {}, offset {}{}", static_cast<int>(kind),
                       element_bytes(product), element_bytes(element), rows, columns, gap, offset,
                       bias ? ", bias" : "");
  }
};

std::vector<Case> cases() {
  std::vector<Case> all;
  for (const Kind kind : kKinds) {
    for (const Element product : kElements) {
      for (const Element element : kElements) {
        if (kind == Kind::kAdd && element != Element::kF32) continue;
        const auto add = [&](std::int64_t rows, std::int64_t columns, std::int64_t gap,
                             std::int64_t offset, bool bias) {
          all.push_back({kind, product, element, rows, columns, gap, offset, bias});
        };
        for (const std::int64_t rows : {1, 5, 67, 130}) add(rows, 33, 0, 0, true);
        for (const std::int64_t columns : {1, 3, 8, 257, 1000}) add(5, columns, 0, 0, false);
        add(67, 264, 8, 0, true);  // vectors
        add(3, 4097, 0, 0, true);
        add(5, 264, 3, 0, true);   // rows at any address
        add(5, 264, 8, 1, false);  // matrices at any address
        add(130, 12, 4, 0, true);  // vectors of f32 alone
      }
    }
  }
  return all;
}

// The operands of one case.
struct Pass {
  explicit Pass(const Case& given) : c(given) {}

  DeviceData matrix(std::uint32_t seed, float scale) {
    std::vector<float> values = distinct(c.rows * stride, seed);
    for (float& value : values) value *= scale;
    return {c.element, values, c.offset};
  }
  ops::Epilogue epilogue() {
    return {.kind = c.kind,
            .out = out.data(),
            .element = c.element,
            .stride = stride,
            .second_out = second_out.data(),
            .first_in = first_in.data(),
            .second_in = second_in.data(),
            .bias = c.bias ? bias.data() : nullptr};
  }
  std::vector<float> results() {
    std::vector<float> all = out.values();
    append(all, second_out.values());
    append(all, first_in.values());
    return all;
  }
  // The product of the identity and the matrix is the matrix.
  void run_on_processor() {
    std::vector<float> ones(static_cast<std::size_t>(c.rows * c.rows));
    for (std::int64_t r = 0; r < c.rows; ++r) ones[static_cast<std::size_t>(r * (c.rows + 1))] = 1;
    ops::matrix_product({ones.data(), Element::kF32, c.rows, c.rows, c.rows},
                        {product.data(), c.product, c.rows, c.columns, c.columns}, epilogue());
  }
  void run_on_device() {
    ops::cuda::apply_epilogue({.product = product.data(),
                               .product_element = c.product,
                               .rows = c.rows,
                               .columns = c.columns,
                               .epilogue = epilogue()},
                              Stream{});
  }

  Case c;
  std::int64_t stride = c.columns + c.gap;
  DeviceData product{c.product, distinct(c.rows* c.columns, 1), c.offset};
  DeviceData out = matrix(2, 1), second_out = matrix(3, 1);
  DeviceData first_in = matrix(4, 10), second_in = matrix(5, 1);
  DeviceData bias{c.element, distinct(c.columns, 6), c.offset};
};

TEST(CudaEpilogue, IsTheProcessors) {
  for (const Case& c : cases()) {
    Pass expected(c);
    expected.run_on_processor();
    const auto check = c.kind == Kind::kStore || c.kind == Kind::kAdd ? 0.0 : kTolerance;
    const std::vector<float> results = in_every_order([&] {
      Pass pass(c);
      pass.run_on_device();
      return pass.results();
    });
    if (check == 0) {
      expect_same(results, expected.results(), c.name());
    } else {
      expect_close(results, expected.results(), c.element, check, c.name());
    }
    if (HasFatalFailure()) return;
  }
}

TEST(CudaEpilogue, ProductMayBeOut) {
  for (const Kind kind : kKinds) {
    for (const Element element : kElements) {
      if (kind == Kind::kAdd) continue;  // p is lost
      const Case c{kind, element, element, 67, 264, 0, 0, true};
      Pass apart(c), same(c);
      same.out = same.product;
      cuda_on_host::host = {};
      apart.run_on_device();
      ops::cuda::apply_epilogue({.product = same.out.data(),
                                 .product_element = element,
                                 .rows = c.rows,
                                 .columns = c.columns,
                                 .epilogue = same.epilogue()},
                                Stream{});
      expect_same(same.results(), apart.results(), c.name());
    }
  }
}

// What a backward pass computes again is what the forward pass has stored.
TEST(CudaEpilogue, ActivationsHaveItsBits) {
  for (const Kind kind : {Kind::kGelu, Kind::kSwiglu}) {
    for (const Element element : kElements) {
      Pass pass({.kind = kind, .product = element, .element = element, .rows = 3, .columns = 1001});
      cuda_on_host::host = {};
      pass.run_on_device();
      const bool gelu = kind == Kind::kGelu;
      DeviceData again(element, distinct(3003, 7));
      ops::cuda::activate({.element = element,
                           .before = gelu ? pass.second_out.data() : pass.first_in.data(),
                           .factor = gelu ? nullptr : pass.second_out.data(),
                           .out = again.data(),
                           .count = 3003},
                          Stream{});
      expect_same(again.values(), pass.out.values(), pass.c.name());
    }
  }
}

TEST(CudaColumnSums, AreTheProcessors) {
  for (const Element element : kElements) {
    const auto check = [&](std::int64_t rows, std::int64_t columns, std::int64_t gap,
                           std::int64_t offset) {
      DeviceData values(element, distinct(rows * (columns + gap), 1), offset);
      const ops::MatrixView view{values.data(), element, rows, columns, columns + gap};
      const auto before = distinct(columns, 2);
      DeviceData expected(Element::kF32, before);
      ops::add_column_sums(view, expected.floats());
      const std::int64_t blocks = ops::cuda::detail::div_up(rows, ops::cuda::kColumnSumRows);
      const std::vector<float> sums = in_every_order([&] {
        DeviceData actual(Element::kF32, before, offset);
        DeviceData partials(Element::kF32, distinct(blocks * columns, 3), offset);
        ops::cuda::add_column_sums(view, actual.floats(), partials.floats(), Stream{});
        partials.values();
        return actual.values();
      });
      // f32 sums of up to 1100 numbers in another order.
      expect_close(sums, expected.values(), Element::kF32, 2e-5,
                   fmt::format("{} x {} + {}, offset {}", rows, columns, gap, offset));
    };
    for (const std::int64_t rows : {0, 1, 5, 67, 130, 1100}) check(rows, 33, 0, 0);
    for (const std::int64_t columns : {1, 3, 257, 1000, 4097}) check(70, columns, 0, 0);
    check(130, 264, 8, 0);
    check(130, 264, 3, 0);
    check(130, 264, 0, 1);
  }
}

TEST(CudaAddAndClear, IsExact) {
  for (const std::int64_t count : {0, 1, 3, 33, 257, 1000, 4097, 20000}) {
    for (const std::int64_t offset : {0, 1}) {
      const auto a = distinct(count, 1), b = distinct(count, 2);
      std::vector<float> expected;
      for (std::size_t i = 0; i < a.size(); ++i) expected.push_back(a[i] + b[i]);
      append(expected, std::vector<float>(b.size(), 0.0F));
      expect_same(in_every_order([&] {
                    DeviceData to(Element::kF32, a), from(Element::kF32, b, offset);
                    ops::cuda::add_and_clear(to.floats(), from.floats(), count, Stream{});
                    std::vector<float> all = to.values();
                    append(all, from.values());
                    return all;
                  }),
                  expected, fmt::format("{} numbers", count));
    }
  }
}

TEST(CudaEpilogue, OfNothingIsNoLaunch) {
  float numbers[8] = {};
  cuda_on_host::host = {};
  ops::cuda::apply_epilogue({.columns = 8, .epilogue = {}}, Stream{});
  ops::cuda::add_column_sums({.columns = 8, .row_stride = 8}, numbers, numbers, Stream{});
  ops::cuda::add_and_clear(numbers, numbers + 4, 0, Stream{});
  EXPECT_EQ(cuda_on_host::host.launches, 0);
}

}  // namespace
}  // namespace trireme::testing
