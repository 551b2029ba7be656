// Copyright 2026 The Trireme authors
// SPDX-License-Identifier: Apache-2.0

// The memory that one rank brings to a measured operation: filled with the pattern, compared with
// what the operation must have made of it.
#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>
#include <span>
#include <string>

#include "trireme/base/dtype.h"
#include "trireme/comm/bench/operations.h"
#include "trireme/comm/buffer.h"

namespace trireme {

// In and out; one and the same where the operation works in place.
struct BenchVectors {
  Buffer input;
  Buffer output;
};

// Bytes of both that this rank needs for the operation, and where they begin: the output after the
// input, on a cache line.
std::size_t bench_vector_bytes(const BenchOperation& operation, const BenchShape& shape,
                               DType dtype);
// memory has at least that many bytes.
BenchVectors place_bench_vectors(const BenchOperation& operation, const BenchShape& shape,
                                 DType dtype, std::span<std::byte> memory);

// Input: the pattern. Output, where it is another buffer: bytes that no result has.
void fill_bench_vectors(const BenchPattern& pattern, const BenchShape& shape,
                        const BenchVectors& vectors);

// What is wrong with the output, "element 7 is not 4, and 12 more are wrong", or
// nothing. Every element is compared with the table's reference.
std::string check_bench_output(const BenchOperation& operation, const BenchPattern& pattern,
                               const BenchShape& shape, const BenchVectors& vectors);

}  // namespace trireme
