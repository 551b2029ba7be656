// Copyright 2026 The Trireme authors
// SPDX-License-Identifier: Apache-2.0

#include "tests/programs/rank_bodies.h"

#include <fmt/core.h>

#include <algorithm>
#include <memory>
#include <numeric>
#include <span>
#include <thread>
#include <utility>
#include <vector>

#include "tests/support/reference_tree.h"

namespace trireme::testing {
namespace {

Buffer as_buffer(Bytes& bytes, DType dtype) {
  return {bytes.data(), static_cast<std::int64_t>(bytes.size() / dtype_bytes(dtype)), dtype};
}
Buffer as_bytes(Bytes& bytes) { return as_buffer(bytes, DType::kU8); }

std::vector<Bytes> inputs_of(const Group& group, std::int64_t count, DType dtype) {
  std::vector<Bytes> inputs(static_cast<std::size_t>(group.size()));
  int rank = 0;
  for (Bytes& input : inputs) input = distinct_data(rank++, count, dtype);
  return inputs;
}

std::size_t own(const Group& group) { return static_cast<std::size_t>(group.rank()); }

// Uneven, one of them zero where there are several.
std::vector<std::int64_t> uneven(const Group& group, std::int64_t most) {
  std::vector<std::int64_t> counts;
  counts.reserve(static_cast<std::size_t>(group.size()));
  for (int rank = 0; rank < group.size(); ++rank) {
    counts.push_back(rank % 3 == 1 ? 0 : most * (rank + 1) / group.size());
  }
  return counts;
}

std::int64_t total(const std::vector<std::int64_t>& counts) {
  return std::accumulate(counts.begin(), counts.end(), std::int64_t{0});
}

Bytes part(const Bytes& bytes, const std::vector<std::int64_t>& counts, int rank, DType dtype) {
  const auto element = static_cast<std::int64_t>(dtype_bytes(dtype));
  const auto begin =
      bytes.begin() +
      std::accumulate(counts.begin(), counts.begin() + rank, std::int64_t{0}) * element;
  return {begin, begin + counts[static_cast<std::size_t>(rank)] * element};
}

void reduce_everything(Group& group) {
  for (const DType dtype : {DType::kF32, DType::kF64, DType::kBF16, DType::kF16, DType::kI8,
                            DType::kU8, DType::kI32, DType::kI64}) {
    const bool is_float =
        dtype != DType::kI8 && dtype != DType::kU8 && dtype != DType::kI32 && dtype != DType::kI64;
    for (const ReduceOp op :
         {ReduceOp::kSum, ReduceOp::kMean, ReduceOp::kMin, ReduceOp::kMax, ReduceOp::kProduct}) {
      if (op == ReduceOp::kMean && !is_float) continue;
      for (const std::int64_t count : {0, 1, 517, 8209, 300007}) {
        if (count > 10000 && (op != ReduceOp::kSum || dtype == DType::kI8)) continue;
        const std::vector<Bytes> inputs = inputs_of(group, count, dtype);
        const Bytes expected = reference_reduce(inputs, dtype, op);
        const std::string name = fmt::format("{} x {}", count, dtype_name(dtype));
        Bytes all = inputs[own(group)];
        group.all_reduce(as_buffer(all, dtype), op);
        expect(all == expected, "all_reduce of " + name);
        const int root = group.size() - 1;
        Bytes some = inputs[own(group)];
        group.reduce(as_buffer(some, dtype), root, op);
        expect(some == (group.rank() == root ? expected : inputs[own(group)]), "reduce of " + name);
      }
    }
  }
}

void move_everything(Group& group) {
  for (const std::int64_t most : {1, 1033, 90001, 1200007}) {
    const std::vector<std::int64_t> counts = uneven(group, most);
    const std::string name = fmt::format("blocks of up to {}", most);
    const std::vector<Bytes> inputs = inputs_of(group, total(counts), DType::kF32);
    const Bytes sum = reference_reduce(inputs, DType::kF32, ReduceOp::kSum);
    Bytes input = inputs[own(group)];
    Bytes block(part(sum, counts, group.rank(), DType::kF32).size());
    group.reduce_scatter(as_buffer(input, DType::kF32), as_buffer(block, DType::kF32),
                         ReduceOp::kSum, counts);
    expect(block == part(sum, counts, group.rank(), DType::kF32), "reduce_scatter of " + name);
    Bytes whole(sum.size());
    group.all_gather(as_buffer(block, DType::kF32), as_buffer(whole, DType::kF32), counts);
    expect(whole == sum, "all_gather of " + name);
    for (int root = 0; root < group.size(); ++root) {
      Bytes data = inputs[own(group)];
      group.broadcast(as_buffer(data, DType::kF32), root);
      expect(data == inputs[static_cast<std::size_t>(root)], "broadcast of " + name);
      Bytes collected(group.rank() == root ? sum.size() : 0);
      group.gather(as_buffer(block, DType::kF32), as_buffer(collected, DType::kF32), root, counts);
      expect(group.rank() != root || collected == sum, "gather of " + name);
      Bytes mine(block.size());
      group.scatter(as_buffer(collected, DType::kF32), as_buffer(mine, DType::kF32), root, counts);
      expect(mine == block, "scatter of " + name);
    }
  }
}

// Rank i sends j what is at (i, j), some of it nothing.
void exchange_everything(Group& group) {
  const auto count = [](int from, int to) {
    return (from + 2 * to) % 3 == 0 ? 0 : 40009 * from + to;
  };
  std::vector<std::int64_t> sends;
  std::vector<std::int64_t> receives;
  Bytes input;
  Bytes expected;
  for (int peer = 0; peer < group.size(); ++peer) {
    sends.push_back(count(group.rank(), peer));
    receives.push_back(count(peer, group.rank()));
    const Bytes out = distinct_data(group.rank() * 64 + peer, sends.back(), DType::kI32);
    const Bytes in = distinct_data(peer * 64 + group.rank(), receives.back(), DType::kI32);
    input.insert(input.end(), out.begin(), out.end());
    expected.insert(expected.end(), in.begin(), in.end());
  }
  Bytes output(expected.size());
  group.all_to_all(as_buffer(input, DType::kI32), as_buffer(output, DType::kI32), sends, receives);
  expect(output == expected, "all_to_all");
  group.barrier();
}

// Nothing, within a letter, at its limit, in one chunk, in several.
constexpr std::int64_t kSizes[] = {0, 1, 4097, 8192, 8193, 1 << 20, 5000011};

Bytes message_of(int from, int tag, int number) {
  const std::int64_t size = kSizes[static_cast<std::size_t>(tag + number) % std::size(kSizes)];
  return distinct_data(from * 100 + tag * 10 + number, size, DType::kU8);
}

}  // namespace

void operations(Group& group) {
  reduce_everything(group);
  move_everything(group);
  exchange_everything(group);
}

void messages(Group& group) {
  constexpr int kTags = 7;
  constexpr int kNumbers = 3;
  const int n = group.size();
  std::vector<Bytes> outgoing;
  std::vector<Work> works;
  outgoing.reserve(std::size_t{kTags} * kNumbers * static_cast<std::size_t>(n));
  for (int tag = 0; tag < kTags; ++tag) {
    for (int number = 0; number < kNumbers; ++number) {
      for (int i = 1; i < n; ++i) {
        outgoing.push_back(message_of(group.rank(), tag, number));
        works.push_back(group.start_send(as_bytes(outgoing.back()), (group.rank() + i) % n, tag));
      }
    }
  }
  std::vector<std::int64_t> sum(20011, 1);
  Work reduction = group.start_all_reduce(buffer_of(std::span(sum)));
  for (int tag = kTags - 1; tag >= 0; --tag) {
    for (int number = 0; number < kNumbers; ++number) {
      for (int i = 1; i < n; ++i) {
        const int from = (group.rank() + i) % n;
        const Bytes expected = message_of(from, tag, number);
        Bytes incoming(expected.size());
        group.recv(as_bytes(incoming), from, tag);
        expect(incoming == expected, fmt::format("message from {} tag {}", from, tag));
      }
    }
  }
  for (Work& work : works) work.wait();
  reduction.wait();
  expect(sum.back() == n, "the sum beside messages");
  for (const std::int64_t size : kSizes) {
    const int last = (group.rank() + n - 1) % n;
    Bytes out = distinct_data(group.rank(), size, DType::kU8);
    Bytes in(out.size());
    group.send_recv(as_bytes(out), (group.rank() + 1) % n, as_bytes(in), last, 9);
    expect(in == distinct_data(last, size, DType::kU8), "the ring's message");
  }
}

void groups(Group& world) {
  constexpr int kGroups = 4;
  std::vector<int> ranks(static_cast<std::size_t>(world.size()));
  std::iota(ranks.begin(), ranks.end(), 0);
  std::vector<std::unique_ptr<Group>> parts;
  parts.reserve(kGroups);
  for (int i = 0; i < kGroups; ++i) parts.push_back(world.split("part" + std::to_string(i), ranks));
  std::vector<std::thread> threads;
  std::vector<std::string> errors(kGroups);
  for (std::size_t i = 0; i < kGroups; ++i) {
    threads.emplace_back([&, i] {
      try {
        for (std::int64_t round = 0; round < 10; ++round) {
          const std::int64_t count = 1 + 70001 * round * static_cast<std::int64_t>(i);
          const std::vector<Bytes> inputs = inputs_of(world, count, DType::kF32);
          Bytes data = inputs[own(world)];
          parts[i]->all_reduce(as_buffer(data, DType::kF32));
          expect(data == reference_reduce(inputs, DType::kF32, ReduceOp::kSum), "a group's sum");
        }
      } catch (const std::exception& error) {
        errors[i] = error.what();
      }
    });
  }
  for (std::thread& thread : threads) thread.join();
  for (const std::string& error : errors) expect(error.empty(), error);
}

void last_words(Group& group) {
  constexpr int kMessages = 300;
  if (group.rank() > 0) {
    for (int i = 0; i < kMessages; ++i) {
      Bytes out = distinct_data(group.rank() * 1000 + i, 3000, DType::kU8);
      group.send(as_bytes(out), 0, 1);
    }
    return;
  }
  for (int i = 0; i < kMessages; ++i) {
    for (int from = 1; from < group.size(); ++from) {
      Bytes in(3000);
      group.recv(as_bytes(in), from, 1);
      expect(in == distinct_data(from * 1000 + i, 3000, DType::kU8), "a last message");
    }
  }
}

}  // namespace trireme::testing
