// Copyright 2026 The Trireme authors
// SPDX-License-Identifier: Apache-2.0

// What is special to memory from Group::allocate_shared(): that operations use it where it is, that
// it mixes with memory of other kinds, and how long it lives.

#include "trireme/comm/shared_buffer.h"

#include <gtest/gtest.h>

#include <cstring>
#include <filesystem>
#include <fstream>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "tests/support/ranks.h"
#include "tests/support/reference_tree.h"
#include "trireme/comm/world.h"

namespace trireme {
namespace {

using testing::Bytes;
using testing::inputs_of;
using testing::reference_reduce;
using testing::run_threads;
using testing::start_processes;

// More than what is small, not a multiple of a cache line, several blocks of a direct reduction.
constexpr std::int64_t kCount = 70001;

// Which ranks have their data in shared memory.
enum class Who { kAll, kNobody, kFirst, kLast };

bool is_shared(Who who, const Group& group) {
  switch (who) {
    case Who::kAll:
      return true;
    case Who::kNobody:
      return false;
    case Who::kFirst:
      return group.rank() == 0;
    case Who::kLast:
      return group.rank() == group.size() - 1;
  }
  return false;
}

// Data of either kind, a little into its memory.
class Data {
 public:
  Data(Group& group, bool shared, std::int64_t count, DType dtype)
      : count_(count), dtype_(dtype), offset_(3 * dtype_bytes(dtype)) {
    const std::size_t bytes = static_cast<std::size_t>(count) * dtype_bytes(dtype);
    if (shared) {
      shared_ = group.allocate_shared(offset_ + bytes);
    } else {
      heap_.resize(offset_ + bytes);
    }
  }
  Buffer buffer() { return {memory() + offset_, count_, dtype_}; }
  Buffer part(std::int64_t begin, std::int64_t count) {
    return {memory() + offset_ + static_cast<std::size_t>(begin) * dtype_bytes(dtype_), count,
            dtype_};
  }
  void set(const Bytes& bytes) { std::memcpy(memory() + offset_, bytes.data(), bytes.size()); }
  Bytes get() {
    const Buffer all = buffer();
    const auto* first = static_cast<const std::byte*>(all.data);
    return {first, first + all.bytes()};
  }

 private:
  std::byte* memory() {
    return heap_.empty() ? static_cast<std::byte*>(shared_.data()) : heap_.data();
  }

  std::int64_t count_;
  DType dtype_;
  std::size_t offset_;
  SharedBuffer shared_;
  Bytes heap_;
};

class SharedBufferTest : public ::testing::TestWithParam<std::pair<Who, int>> {
 protected:
  Who who() const { return GetParam().first; }
  int size() const { return GetParam().second; }
};

// Every operation twice: the first cannot be direct yet.
TEST_P(SharedBufferTest, ReductionsGiveTheBitsOfTheTree) {
  for (const auto& [dtype, op] :
       {std::pair(DType::kF32, ReduceOp::kSum), std::pair(DType::kBF16, ReduceOp::kMean),
        std::pair(DType::kU8, ReduceOp::kMax)}) {
    const std::vector<Bytes> inputs = inputs_of(size(), kCount, dtype);
    const Bytes expected = reference_reduce(inputs, dtype, op);
    run_threads(size(), [&, dtype = dtype, op = op](Group& group) {
      Data data(group, is_shared(who(), group), kCount, dtype);
      const Bytes& own = inputs[static_cast<std::size_t>(group.rank())];
      for (int round = 0; round < 2; ++round) {
        data.set(own);
        group.all_reduce(data.buffer(), op);
        EXPECT_TRUE(data.get() == expected) << "all_reduce " << dtype_name(dtype);
        const int root = round % size();
        data.set(own);
        group.reduce(data.buffer(), root, op);
        EXPECT_TRUE(data.get() == (group.rank() == root ? expected : own))
            << "reduce " << dtype_name(dtype) << " at " << group.rank();
      }
    });
  }
}

// Blocks of very different sizes; the last is the largest.
std::vector<std::int64_t> uneven(int size) {
  std::vector<std::int64_t> counts(static_cast<std::size_t>(size));
  for (int rank = 0; rank < size; ++rank) counts[static_cast<std::size_t>(rank)] = rank * 5003 + 1;
  counts[0] = 0;
  counts.back() = 100003;
  return counts;
}

TEST_P(SharedBufferTest, ReduceScatterOfUnevenBlocks) {
  const std::vector<std::int64_t> counts = uneven(size());
  std::vector<std::int64_t> begins(1, 0);
  for (const std::int64_t count : counts) begins.push_back(begins.back() + count);
  const std::vector<Bytes> inputs = inputs_of(size(), begins.back(), DType::kF32);
  const Bytes sum = reference_reduce(inputs, DType::kF32, ReduceOp::kSum);
  run_threads(size(), [&](Group& group) {
    const auto rank = static_cast<std::size_t>(group.rank());
    Data input(group, is_shared(who(), group), begins.back(), DType::kF32);
    Bytes output(static_cast<std::size_t>(counts[rank]) * 4);
    const Bytes expected(sum.begin() + begins[rank] * 4, sum.begin() + begins[rank + 1] * 4);
    for (int round = 0; round < 2; ++round) {
      input.set(inputs[rank]);
      group.reduce_scatter(input.buffer(), {output.data(), counts[rank], DType::kF32},
                           ReduceOp::kSum, counts);
      EXPECT_TRUE(output == expected);
      EXPECT_TRUE(input.get() == inputs[rank]) << "the input changed";
      group.reduce_scatter(input.buffer(), input.part(begins[rank], counts[rank]), ReduceOp::kSum,
                           counts);
      const Bytes all = input.get();
      EXPECT_TRUE(Bytes(all.begin() + begins[rank] * 4, all.begin() + begins[rank + 1] * 4) ==
                  expected)
          << "in place";
    }
  });
}

TEST_P(SharedBufferTest, MovesBringWhatTheOthersHave) {
  const std::vector<std::int64_t> counts = uneven(size());
  std::vector<std::int64_t> begins(1, 0);
  for (const std::int64_t count : counts) begins.push_back(begins.back() + count);
  const std::int64_t total = begins.back();
  const std::vector<Bytes> inputs = inputs_of(size(), total, DType::kF32);
  // Block j of what rank i has.
  const auto block = [&](std::size_t i, std::size_t j) {
    return Bytes(inputs[i].begin() + begins[j] * 4, inputs[i].begin() + begins[j + 1] * 4);
  };
  Bytes gathered;
  for (std::size_t i = 0; i < counts.size(); ++i) {
    const Bytes part = block(i, i);
    gathered.insert(gathered.end(), part.begin(), part.end());
  }
  run_threads(size(), [&](Group& group) {
    const auto rank = static_cast<std::size_t>(group.rank());
    Data data(group, is_shared(who(), group), total, DType::kF32);
    for (int round = 0; round < 2; ++round) {
      const int root = (size() - 1 + round) % size();
      data.set(inputs[rank]);
      group.all_gather(data.part(begins[rank], counts[rank]), data.buffer(), counts);
      EXPECT_TRUE(data.get() == gathered) << "all_gather";
      data.set(inputs[rank]);
      group.broadcast(data.buffer(), root);
      EXPECT_TRUE(data.get() == inputs[static_cast<std::size_t>(root)]) << "broadcast";

      data.set(inputs[rank]);
      Bytes output(static_cast<std::size_t>(total) * 4);
      const Buffer to{output.data(), total, DType::kF32};
      group.gather(data.part(begins[rank], counts[rank]), to, root, counts);
      if (group.rank() == root) {
        EXPECT_TRUE(output == gathered) << "gather";
      }
      Bytes own(static_cast<std::size_t>(counts[rank]) * 4);
      group.scatter(data.buffer(), {own.data(), counts[rank], DType::kF32}, root, counts);
      EXPECT_TRUE(own == block(static_cast<std::size_t>(root), rank)) << "scatter";

      // Everybody sends its block j to rank j.
      Bytes received;
      for (std::size_t i = 0; i < counts.size(); ++i) {
        const Bytes part = block(i, rank);
        received.insert(received.end(), part.begin(), part.end());
      }
      const std::vector<std::int64_t> same(counts.size(), counts[rank]);
      Bytes blocks(received.size());
      group.all_to_all(data.buffer(),
                       {blocks.data(), static_cast<std::int64_t>(blocks.size() / 4), DType::kF32},
                       counts, same);
      EXPECT_TRUE(blocks == received) << "all_to_all";
    }
  });
}

std::string name_of(const ::testing::TestParamInfo<std::pair<Who, int>>& test) {
  constexpr const char* kNames[] = {"all", "nobody", "first", "last"};
  return std::string(kNames[static_cast<int>(test.param.first)]) + "_of_" +
         std::to_string(test.param.second);
}

INSTANTIATE_TEST_SUITE_P(Memory, SharedBufferTest,
                         ::testing::Values(std::pair(Who::kAll, 1), std::pair(Who::kAll, 2),
                                           std::pair(Who::kAll, 3), std::pair(Who::kAll, 5),
                                           std::pair(Who::kFirst, 3), std::pair(Who::kLast, 3),
                                           std::pair(Who::kNobody, 3)),
                         name_of);

// Counted alike, direct or not: docs/collectives.md has the table.
TEST(SharedBuffer, CountsTheSameBytes) {
  run_threads(3, [](Group& group) {
    std::vector<std::int64_t> sent;
    for (const bool shared : {false, true}) {
      Data data(group, shared, kCount * 3, DType::kF32);
      Bytes own(static_cast<std::size_t>(kCount) * 4);
      group.barrier();
      const std::int64_t before = group.bytes_sent();
      group.all_reduce(data.buffer());
      group.reduce(data.buffer(), 1);
      group.reduce_scatter(data.buffer(), {own.data(), kCount, DType::kF32});
      group.all_gather(data.part(0, kCount), data.buffer());
      group.broadcast(data.buffer(), 2);
      group.scatter(data.buffer(), {own.data(), kCount, DType::kF32}, 0);
      sent.push_back(group.bytes_sent() - before);
    }
    // The parts of an all_reduce are rounded to cache lines, direct and otherwise.
    EXPECT_NEAR(static_cast<double>(sent[0]), static_cast<double>(sent[1]), 3 * 64 * 4);
  });
}

TEST(SharedBuffer, IsZeroAndStartsAtAPage) {
  run_threads(2, [](Group& group) {
    for (const std::size_t bytes : {std::size_t{1}, std::size_t{4096}, std::size_t{1000003}}) {
      const SharedBuffer memory = group.allocate_shared(bytes);
      EXPECT_EQ(memory.bytes(), bytes);
      EXPECT_EQ(reinterpret_cast<std::uintptr_t>(memory.data()) % 4096, 0U);
      const auto* data = static_cast<const char*>(memory.data());
      for (std::size_t i = 0; i < bytes; ++i) ASSERT_EQ(data[i], 0);
    }
    EXPECT_EQ(group.allocate_shared(0).data(), nullptr);
  });
}

TEST(SharedBuffer, OutlivesItsWorld) {
  std::vector<SharedBuffer> kept(2);
  run_threads(2, [&](Group& group) {
    SharedBuffer memory = group.allocate_shared(kCount * 4);
    group.all_reduce({memory.data(), kCount, DType::kF32});
    group.all_reduce({memory.data(), kCount, DType::kF32});
    kept[static_cast<std::size_t>(group.rank())] = std::move(memory);
  });
  for (SharedBuffer& memory : kept) {
    std::memset(memory.data(), 7, memory.bytes());
    memory = {};
    EXPECT_EQ(memory.bytes(), 0U);
  }
}

// Resident shared memory of this process.
std::int64_t shared_kib() {
  std::ifstream status("/proc/self/status");
  for (std::string line; std::getline(status, line);) {
    if (line.starts_with("RssShmem:")) return std::stoll(line.substr(9));
  }
  return -1;
}
std::ptrdiff_t open_descriptors() {
  const std::filesystem::directory_iterator folder("/proc/self/fd");
  return std::distance(begin(folder), end(folder));
}

// Many buffers one after the other, each used directly by the others.
TEST(SharedBuffer, GivesBackWhatIsFreed) {
  constexpr std::int64_t kLarge = 1 << 20;  // elements: 4 MiB
  auto ranks = start_processes(2, [](const WorldOptions& options) {
    const auto group = join_world(options);
    std::optional<std::pair<std::int64_t, std::ptrdiff_t>> early;
    for (int i = 0; i < 30; ++i) {
      const SharedBuffer memory = group->allocate_shared(kLarge * 4);
      auto* data = static_cast<float*>(memory.data());
      data[kLarge - 1] = static_cast<float>(i + group->rank());
      group->all_reduce({memory.data(), kLarge, DType::kF32});
      group->all_reduce({memory.data(), kLarge, DType::kF32});
      if (data[kLarge - 1] != static_cast<float>(2 * (2 * i + 1))) return std::string("wrong sum");
      if (i == 4) early = {shared_kib(), open_descriptors()};
    }
    group->barrier();
    const std::int64_t more_kib = shared_kib() - early->first;
    const std::ptrdiff_t more_descriptors = open_descriptors() - early->second;
    group->close();
    if (more_kib > 4 * 4096) return "grew by " + std::to_string(more_kib) + " KiB";
    if (more_descriptors > 1) return std::to_string(more_descriptors) + " more descriptors";
    return std::string("fine");
  });
  for (auto& rank : ranks) EXPECT_EQ(rank.result(), "fine");
}

// Two hosts of two ranks: the parts inside each host are direct.
TEST(SharedBuffer, InAHierarchy) {
  const std::vector<Bytes> inputs = inputs_of(4, 400009, DType::kF32);
  const Bytes expected = reference_reduce(inputs, DType::kF32, ReduceOp::kSum);
  auto ranks = start_processes(
      4,
      [&](const WorldOptions& options) {
        const auto group = join_world(options);
        Data data(*group, true, 400009, DType::kF32);
        for (int round = 0; round < 3; ++round) {
          data.set(inputs[static_cast<std::size_t>(group->rank())]);
          group->all_reduce(data.buffer());
          if (data.get() != expected) return std::string("wrong sum");
        }
        group->close();
        return std::string("fine");
      },
      "auto", [](WorldOptions& options) { options.host_id = options.rank < 2 ? "alpha" : "beta"; });
  for (auto& rank : ranks) EXPECT_EQ(rank.result(), "fine");
}

// A rank that differs is told so, whether or not its data is shared.
TEST(SharedBuffer, OperationsAreComparedFirst) {
  auto ranks = start_processes(2, [](const WorldOptions& options) {
    const auto group = join_world(options);
    const SharedBuffer memory = group->allocate_shared(kCount * 4);
    group->barrier();  // from now on operations may be direct
    group->all_reduce({memory.data(), kCount - options.rank, DType::kF32});
    return std::string("nothing was said");
  });
  for (auto& rank : ranks) {
    const std::string result = rank.result();
    EXPECT_NE(result.find("CommError"), std::string::npos) << result;
    EXPECT_NE(result.find("70001"), std::string::npos) << result;
    EXPECT_NE(result.find("70000"), std::string::npos) << result;
  }
}

// Killed while its data is being used: the survivor, which still maps it, goes on to the barrier
// and hears there.
TEST(SharedBuffer, AKilledOwnerIsNamed) {
  auto ranks = start_processes(2, [](const WorldOptions& options) {
    const auto group = join_world(options);
    const SharedBuffer memory = group->allocate_shared(kCount * 4);
    const Buffer data{memory.data(), kCount, DType::kF32};
    group->all_reduce(data);
    testing::RankProcess::say("working");
    for (;;) group->all_reduce(data);
    return std::string();
  });
  for (auto& rank : ranks) ASSERT_TRUE(rank.wait_to_hear("working"));
  ranks[1].signal(SIGKILL);
  const std::string result = ranks[0].result();
  EXPECT_TRUE(result.starts_with("PeerLostError 1")) << result;
}

}  // namespace
}  // namespace trireme
