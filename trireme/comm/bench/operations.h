// Copyright 2026 The Trireme authors
// SPDX-License-Identifier: Apache-2.0

// The operations that `trireme bench comm` measures, as a table: what each rank brings and gets,
// what the result must be, and how many bytes count.
//
// n ranks. `bytes` is the whole vector, as nccl-tests counts it:
//
//   all_reduce, broadcast, reduce   what each rank holds, in place
//   reduce_scatter                  the input of each rank; its output is 1 / n of it
//   all_gather                      the output of each rank; its input is 1 / n of it
//   all_to_all, send_recv           the input, and the output, of each rank
//   gather, scatter                 the root's vector; a rank's block is 1 / n of it
//   barrier                         nothing
//
// Root is rank 0; in send_recv rank r sends to r + 1 and receives from r - 1, round the end.
#pragma once

#include <cstdint>
#include <span>
#include <string_view>
#include <vector>

namespace trireme {

enum class BenchOp {
  kAllReduce,
  kReduceScatter,
  kAllGather,
  kAllToAll,
  kBroadcast,
  kReduce,
  kGather,
  kScatter,
  kSendRecv,
  kBarrier
};

// Who is asked about, and of which sizes: one rank's share in one operation.
struct BenchShape {
  int rank = 0;
  int ranks = 1;
  std::int64_t count = 0;  // elements of the whole vector; a multiple of ranks if it is in blocks

  std::int64_t block() const { return count / ranks; }
};

// What rank `rank` brings as element i of its input. Small whole numbers: sums of up to 32 ranks
// are exact in every dtype but i8 and u8, which wrap. Different per rank and element; repeats after
// a prime number of elements, so that no block is in another's place unnoticed.
class BenchPattern {
 public:
  explicit BenchPattern(int ranks);
  double value(int rank, std::int64_t i) const;
  // Over all ranks.
  double sum(std::int64_t i) const;

 private:
  std::vector<std::vector<std::int8_t>> values_;  // by rank
  std::vector<double> sums_;
};

struct BenchOperation {
  BenchOp op;
  std::string_view name;
  bool in_place;   // input and output are one buffer
  bool in_blocks;  // the vector is made of one block for each rank
  // Elements of the rank's input and output; 0: it has none.
  std::int64_t (*input_count)(const BenchShape& shape);
  std::int64_t (*output_count)(const BenchShape& shape);
  // Element i of the rank's output.
  double (*expected)(const BenchPattern& pattern, const BenchShape& shape, std::int64_t i);
  // Bus bandwidth is this times bytes / time, as nccl-tests define it: comparable to the link's
  // rate whatever n is.
  double (*bus_factor)(int ranks);
  // Bytes that all ranks together must at least read from and write to memory, in vectors of
  // `bytes`: each input read once, each output written once. What engines move besides counts
  // against them, and so does reading lines only to overwrite them.
  double (*memory_factor)(int ranks);
};

std::span<const BenchOperation> bench_operations();
// Throws ConfigError with the names that there are.
const BenchOperation& find_bench_operation(std::string_view name);

}  // namespace trireme
