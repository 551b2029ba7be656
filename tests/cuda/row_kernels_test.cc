// Copyright 2026 The Trireme authors
// SPDX-License-Identifier: Apache-2.0

#include "tests/fakes/cuda_on_host.h"
// The text under test:
#include "trireme/ops/cuda/row_kernels.cu"
// After it:
#include <fmt/format.h>
#include <gtest/gtest.h>

#include "tests/cuda/device_data.h"

namespace trireme::testing {
namespace {

using ops::cuda::Stream;

std::string describe(Element element, std::int64_t a, std::int64_t b, std::int64_t offset) {
  return fmt::format("{} bytes, {} x {}, offset {}", element_bytes(element), a, b, offset);
}

// body(element, rows, width, offset) for sizes across vectors, warps, blocks and grids.
template <class Body>
void for_each_size(const Body& body) {
  for (const Element element : kElements) {
    for (const std::int64_t rows : {0, 1, 5, 67, 130}) body(element, rows, std::int64_t{33}, 0);
    for (const std::int64_t width : {1, 3, 8, 257, 1000, 4097}) body(element, 5, width, 0);
    body(element, 67, std::int64_t{1000}, 0);
    body(element, 5, std::int64_t{1000}, 1);
  }
}

// Fused multiply-adds in the same places: the bits of the processor.
TEST(CudaRows, RotationIsTheProcessors) {
  for_each_size([](Element element, std::int64_t rows, std::int64_t half, std::int64_t offset) {
    constexpr std::int64_t kHeads = 3, kTokens = 4;
    for (const bool inverse : {false, true}) {
      const auto values = distinct(rows * kHeads * 2 * half, 1);
      DeviceData cosines(Element::kF32, distinct(kTokens * half, 2), offset);
      DeviceData sines(Element::kF32, distinct(kTokens * half, 3), offset);
      const auto rotation = [&](DeviceData& x, DeviceData& out) {
        return ops::Rotation{.element = element,
                             .x = x.data(),
                             .out = out.data(),
                             .cosines = cosines.floats(),
                             .sines = sines.floats(),
                             .rows = rows,
                             .tokens = kTokens,
                             .heads = kHeads,
                             .head_width = 2 * half,
                             .inverse = inverse};
      };
      DeviceData x(element, values, offset), out(element, values, offset);
      ops::rotate_heads(rotation(x, out));
      expect_same(in_every_order([&] {
                    DeviceData both(element, values, offset);
                    ops::cuda::rotate_heads(rotation(both, both), Stream{});
                    return both.values();
                  }),
                  out.values(), describe(element, rows, half, offset));
    }
  });
}

TEST(CudaRows, EmbeddingsAreTheProcessors) {
  for_each_size([](Element element, std::int64_t rows, std::int64_t width, std::int64_t offset) {
    constexpr std::int64_t kTable = 11, kTokens = 3;
    std::vector<std::int64_t> indices;
    for (std::int64_t r = 0; r < rows; ++r) indices.push_back(r * 7 % kTable);
    for (const bool with_positions : {false, true}) {
      DeviceData table(element, distinct(kTable * width, 1), offset);
      DeviceData positions(element, distinct(kTokens * width, 2), offset);
      const auto look_up = [&](DeviceData& out) {
        return ops::EmbeddingRows{.element = element,
                                  .table = table.data(),
                                  .positions = with_positions ? positions.data() : nullptr,
                                  .indices = indices.data(),
                                  .out = out.data(),
                                  .rows = rows,
                                  .tokens = kTokens,
                                  .width = width};
      };
      const auto before = distinct(rows * width, 3);
      DeviceData expected(element, before, offset);
      ops::look_up_rows(look_up(expected));
      expect_same(in_every_order([&] {
                    DeviceData out(element, before, offset);
                    ops::cuda::look_up_rows(look_up(out), Stream{});
                    return out.values();
                  }),
                  expected.values(), describe(element, rows, width, offset));
    }
  });
}

// Group g has g % 6 rows: some have none.
TEST(CudaRows, GroupsOfRowsAreTheProcessors) {
  for_each_size([](Element element, std::int64_t groups, std::int64_t width, std::int64_t offset) {
    std::vector<std::int64_t> starts{0}, targets, order;
    for (std::int64_t g = 0; g < groups; ++g) {
      starts.push_back(starts.back() + g % 6);
      targets.push_back(groups - 1 - g);
    }
    const std::int64_t rows = starts.back();
    for (std::int64_t i = 0; i < rows; ++i) order.push_back((i + 3) % rows);
    DeviceData from(element, distinct(rows * width, 1), offset);
    const auto before = distinct(groups * width, 2);
    const auto add = [&](DeviceData& to) {
      return ops::RowGroups{.element = element,
                            .from = from.data(),
                            .width = width,
                            .groups = groups,
                            .order = order.data(),
                            .starts = starts.data(),
                            .targets = targets.data(),
                            .to = to.floats()};
    };
    DeviceData expected(Element::kF32, before, offset);
    ops::add_row_groups(add(expected));
    expect_same(in_every_order([&] {
                  DeviceData to(Element::kF32, before, offset);
                  ops::cuda::add_row_groups(add(to), Stream{});
                  return to.values();
                }),
                expected.values(), describe(element, groups, width, offset));
  });
}

TEST(CudaRows, ActivationsAreTheProcessors) {
  constexpr double kTolerance = 1e-6;  // of e^x: within 2 ulp here and there
  for (const Element element : kElements) {
    for (const std::int64_t count : {0, 1, 3, 33, 257, 1000, 4097}) {
      for (const std::int64_t offset : {0, 1}) {
        std::vector<float> before = distinct(count, 1);
        for (float& x : before) x *= 12;
        const auto large = [&](std::size_t i, float x) {
          if (i < before.size()) before[i] = x;
        };
        large(2, 1e4F), large(7, -1e4F), large(8, -88), large(9, -0.0F), large(40, std::nanf(""));
        DeviceData x(element, before, offset), factor(element, distinct(count, 2), offset);
        for (const bool gated : {false, true}) {
          const auto activation = [&](DeviceData& out) {
            return ops::Activation{.element = element,
                                   .before = x.data(),
                                   .factor = gated ? factor.data() : nullptr,
                                   .out = out.data(),
                                   .count = count};
          };
          DeviceData expected(element, before, offset);
          ops::activate(activation(expected));
          expect_close(in_every_order([&] {
                         DeviceData out(element, before, offset);
                         ops::cuda::activate(activation(out), Stream{});
                         return out.values();
                       }),
                       expected.values(), element, kTolerance,
                       describe(element, count, gated, offset));
        }
      }
    }
  }
}

TEST(CudaRows, OfNothingAreNoLaunch) {
  cuda_on_host::host = {};
  ops::cuda::rotate_heads({.tokens = 1, .heads = 1, .head_width = 2}, Stream{});
  ops::cuda::look_up_rows({.tokens = 1, .width = 8}, Stream{});
  ops::cuda::add_row_groups({.width = 8}, Stream{});
  ops::cuda::activate({}, Stream{});
  EXPECT_EQ(cuda_on_host::host.launches, 0);
}

}  // namespace
}  // namespace trireme::testing
