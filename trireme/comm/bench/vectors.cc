// Copyright 2026 The Trireme authors
// SPDX-License-Identifier: Apache-2.0

#include "trireme/comm/bench/vectors.h"

#include <fmt/format.h>

#include <cstring>

#include "trireme/base/check.h"
#include "trireme/comm/float16.h"

namespace trireme {
namespace {

constexpr std::size_t kLine = 64;

// Calls body with a function from a reference value to the element that stands for it.
template <class Body>
auto with_encoder(DType dtype, const Body& body) {
  const auto whole = [](double v) { return static_cast<std::int64_t>(v); };
  switch (dtype) {
    case DType::kF32:
      return body([](double v) { return static_cast<float>(v); });
    case DType::kF64:
      return body([](double v) { return v; });
    case DType::kBF16:
      return body([](double v) { return f32_to_bf16(static_cast<float>(v)); });
    case DType::kF16:
      return body([](double v) { return f32_to_f16(static_cast<float>(v)); });
    case DType::kI8:
      return body([whole](double v) { return static_cast<std::int8_t>(whole(v)); });
    case DType::kU8:
      return body([whole](double v) { return static_cast<std::uint8_t>(whole(v)); });
    case DType::kI32:
      return body([whole](double v) { return static_cast<std::int32_t>(whole(v)); });
    case DType::kI64:
      break;
  }
  return body(whole);
}

std::size_t input_bytes(const BenchOperation& operation, const BenchShape& shape, DType dtype) {
  const std::size_t bytes =
      static_cast<std::size_t>(operation.input_count(shape)) * dtype_bytes(dtype);
  return (bytes + kLine - 1) / kLine * kLine;
}

}  // namespace

std::size_t bench_vector_bytes(const BenchOperation& operation, const BenchShape& shape,
                               DType dtype) {
  const std::size_t input = input_bytes(operation, shape, dtype);
  if (operation.in_place) return input;
  return input + static_cast<std::size_t>(operation.output_count(shape)) * dtype_bytes(dtype);
}

BenchVectors place_bench_vectors(const BenchOperation& operation, const BenchShape& shape,
                                 DType dtype, std::span<std::byte> memory) {
  TRIREME_CHECK_LE(bench_vector_bytes(operation, shape, dtype), memory.size(), "{}",
                   operation.name);
  BenchVectors vectors;
  vectors.input = {memory.data(), operation.input_count(shape), dtype};
  vectors.output = vectors.input;
  if (!operation.in_place) {
    vectors.output.data = memory.data() + input_bytes(operation, shape, dtype);
    vectors.output.count = operation.output_count(shape);
  }
  return vectors;
}

void fill_bench_vectors(const BenchPattern& pattern, const BenchShape& shape,
                        const BenchVectors& vectors) {
  if (vectors.output.data != vectors.input.data && vectors.output.count > 0) {
    std::memset(vectors.output.data, 0xA5, vectors.output.bytes());
  }
  with_encoder(vectors.input.dtype, [&](auto encode) {
    auto* data = static_cast<decltype(encode(0.0))*>(vectors.input.data);
    for (std::int64_t i = 0; i < vectors.input.count; ++i) {
      data[i] = encode(pattern.value(shape.rank, i));
    }
  });
}

std::string check_bench_output(const BenchOperation& operation, const BenchPattern& pattern,
                               const BenchShape& shape, const BenchVectors& vectors) {
  return with_encoder(vectors.output.dtype, [&](auto encode) {
    const auto* data = static_cast<const decltype(encode(0.0))*>(vectors.output.data);
    std::int64_t wrong = 0;
    std::string first;
    for (std::int64_t i = 0; i < vectors.output.count; ++i) {
      const double due = operation.expected(pattern, shape, i);
      if (data[i] == encode(due)) continue;
      if (wrong++ == 0) first = fmt::format("element {} is not {}", i, due);
    }
    return wrong > 1 ? fmt::format("{}, and {} more are wrong", first, wrong - 1) : first;
  });
}

}  // namespace trireme
