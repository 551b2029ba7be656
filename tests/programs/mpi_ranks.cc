// Copyright 2026 The Trireme authors
// SPDX-License-Identifier: Apache-2.0

// One rank of a world over MPI, for tests/comm/mpi_engine_test.cc, which starts it by mpirun:
//
//   mpirun -n 3 mpi_ranks SCENARIO [ENGINE [HOSTS]]
//
// HOSTS has a digit for each rank: the imitated host that it is on. Prints one line per rank, "rank
// 0: ok" or "rank 0: TypeOfError: message"; exits as the trireme program does.

#include <fmt/core.h>
#include <mpi.h>

#include <algorithm>
#include <csignal>
#include <cstdio>
#include <functional>
#include <map>
#include <numeric>
#include <stdexcept>
#include <string>
#include <thread>
#include <utility>
#include <vector>

#include "tests/support/reference_tree.h"
#include "trireme/base/deadline.h"
#include "trireme/base/error.h"
#include "trireme/base/log.h"
#include "trireme/comm/group.h"
#include "trireme/launch/environment.h"
#include "trireme/launch/init.h"

namespace trireme {
namespace {

using testing::Bytes;
using testing::distinct_data;
using testing::reference_reduce;

constexpr std::chrono::milliseconds kTestDeadline = std::chrono::seconds(60);

class WrongResult : public std::runtime_error {
 public:
  using std::runtime_error::runtime_error;
};

void expect(bool condition, const std::string& what) {
  if (!condition) throw WrongResult(what);
}

Buffer as_buffer(Bytes& bytes, DType dtype) {
  return {bytes.data(), static_cast<std::int64_t>(bytes.size() / dtype_bytes(dtype)), dtype};
}
Buffer as_bytes(Bytes& bytes) { return as_buffer(bytes, DType::kU8); }

std::vector<Bytes> inputs_of(const Group& group, std::int64_t count, DType dtype) {
  std::vector<Bytes> inputs;
  for (int rank = 0; rank < group.size(); ++rank) {
    inputs.push_back(distinct_data(rank, count, dtype));
  }
  return inputs;
}

std::size_t own(const Group& group) { return static_cast<std::size_t>(group.rank()); }

// Uneven, one of them zero where there are several.
std::vector<std::int64_t> uneven(const Group& group, std::int64_t most) {
  std::vector<std::int64_t> counts;
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

void operations(Group& group) {
  reduce_everything(group);
  move_everything(group);
  exchange_everything(group);
}

// Nothing, within a letter, at its limit, in one chunk, in several.
constexpr std::int64_t kSizes[] = {0, 1, 4097, 8192, 8193, 1 << 20, 5000011};

Bytes message_of(int from, int tag, int number) {
  const std::int64_t size = kSizes[static_cast<std::size_t>(tag + number) % std::size(kSizes)];
  return distinct_data(from * 100 + tag * 10 + number, size, DType::kU8);
}

// All messages of all ranks at once, received in another order than sent, with a reduction beside
// them; then a ring.
void messages(Group& group) {
  constexpr int kTags = 7;
  constexpr int kNumbers = 3;
  const int n = group.size();
  std::vector<Bytes> outgoing;
  std::vector<Work> works;
  outgoing.reserve(static_cast<std::size_t>(kTags * kNumbers * n));
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

// One group per thread, all ranks in each; reductions of different sizes at the same time.
void groups(Group& world) {
  constexpr int kGroups = 4;
  std::vector<int> ranks(static_cast<std::size_t>(world.size()));
  std::iota(ranks.begin(), ranks.end(), 0);
  std::vector<std::unique_ptr<Group>> parts;
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

// What is sent last, and by ranks that leave at once, arrives.
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

// Rank 1 goes in the middle of a reduction, after some that were whole. The contract for those who
// stay is five seconds.
void lose_rank_one(Group& group, int signal) {
  std::vector<float> data(4000037, 1.0F);
  for (int i = 0; i < 3; ++i) group.all_reduce(buffer_of(std::span(data)), ReduceOp::kMax);
  if (signal == SIGSTOP) group.set_timeout(std::chrono::milliseconds(1500));
  const Deadline contract = Deadline::after(std::chrono::seconds(5));
  Work work = group.start_all_reduce(buffer_of(std::span(data)), ReduceOp::kMax);
  if (group.rank() == 1) std::raise(signal);
  try {
    work.wait();
    group.barrier();
  } catch (const CommError&) {
    if (signal == SIGKILL) expect(!contract.expired(), "the loss was noticed too late");
    throw;
  }
}

void mismatch(Group& group) {
  std::vector<float> data(70001);
  group.barrier();
  group.all_reduce(buffer_of(
      std::span(data).first(static_cast<std::size_t>(group.rank() == 1 ? 70001 : 70000))));
}

void message_mismatch(Group& group) {
  std::vector<float> data(100007);
  if (group.rank() == 0) group.send({data.data(), 100003, DType::kF32}, 1, 4);
  if (group.rank() == 1) group.recv({data.data(), 100004, DType::kF32}, 0, 4);
  group.barrier();
}

void wait_for_one_who_left(Group& group) {
  group.barrier();
  if (group.rank() != 1) group.barrier();
}

WorldOptions options_of(int argc, char** argv) {
  WorldOptions options = world_options(launch_info());
  options.engine = argc > 2 ? argv[2] : "mpi";
  options.secret = "a secret of this test";
  options.join_timeout = kTestDeadline;
  options.timeout = kTestDeadline;
  if (argc > 3) options.host_id = std::string("host ") + argv[3][options.rank];
  return options;
}

void in_a_world(const WorldOptions& options, const std::function<void(Group&)>& body) {
  const std::unique_ptr<Group> group = join_world(options);
  expect(group->engine() == options.engine || options.size == 1,
         "engine " + std::string(group->engine()));
  body(*group);
  group->close();
}

// The program has MPI for itself, and sends in MPI_COMM_WORLD under the tag that we use in ours.
// The world's ranks are in the reverse order of MPI's.
void beside_the_programs_own(WorldOptions options) {
  int level = 0;
  MPI_Init_thread(nullptr, nullptr, MPI_THREAD_MULTIPLE, &level);
  int rank = 0;
  MPI_Comm_rank(MPI_COMM_WORLD, &rank);
  options.rank = options.size - 1 - rank;
  const int next = (rank + 1) % options.size;
  const int out = rank;
  int in = -1;
  in_a_world(options, [&](Group& group) {
    MPI_Request sent = MPI_REQUEST_NULL;
    MPI_Isend(&out, 1, MPI_INT, next, 0, MPI_COMM_WORLD, &sent);
    operations(group);
    MPI_Recv(&in, 1, MPI_INT, MPI_ANY_SOURCE, 0, MPI_COMM_WORLD, MPI_STATUS_IGNORE);
    MPI_Wait(&sent, MPI_STATUS_IGNORE);
  });
  expect(next == (in + 2) % options.size, "the program's own message");
  MPI_Finalize();
}

// One rank of MPI is two ranks of the world, and the other none.
void two_ranks_in_one_process(WorldOptions options) {
  int level = 0;
  MPI_Init_thread(nullptr, nullptr, MPI_THREAD_MULTIPLE, &level);
  if (options.rank == 1) return;
  WorldOptions other = options;
  other.rank = 1;
  std::thread second([&] {
    try {
      join_world(other);
    } catch (const ConfigError&) {
      // The first one's error is told.
    }
  });
  try {
    join_world(options);
  } catch (const std::exception&) {
    second.join();
    throw;
  }
  second.join();
}

void with_level(const WorldOptions& options, int level) {
  MPI_Init_thread(nullptr, nullptr, level, &level);
  in_a_world(options, [](Group& group) { group.barrier(); });
}

void run(const std::string& scenario, WorldOptions options) {
  const std::map<std::string, std::function<void(Group&)>> kBodies{
      {"operations", operations},
      {"messages", messages},
      {"groups", groups},
      {"last_words", last_words},
      {"kill", [](Group& group) { lose_rank_one(group, SIGKILL); }},
      {"stop", [](Group& group) { lose_rank_one(group, SIGSTOP); }},
      {"mismatch", mismatch},
      {"message_mismatch", message_mismatch},
      {"left", wait_for_one_who_left},
  };
  if (const auto body = kBodies.find(scenario); body != kBodies.end()) {
    return in_a_world(options, body->second);
  }
  if (scenario == "two_worlds") {
    in_a_world(options, messages);
    return in_a_world(options, messages);
  }
  if (scenario == "own_mpi") return beside_the_programs_own(options);
  if (scenario == "single") return with_level(options, MPI_THREAD_SINGLE);
  if (scenario == "same_rank") return two_ranks_in_one_process(options);
  if (scenario == "too_many") ++options.size;
  in_a_world(options, [](Group& group) { group.barrier(); });
}

int run_and_tell(int argc, char** argv) {
  // As programs that save what they have before they end: mpirun sends it when a rank has ended.
  std::signal(SIGTERM, SIG_IGN);
  int rank = -1;
  std::string text = "ok";
  int status = 0;
  try {
    const WorldOptions options = options_of(argc, argv);
    rank = options.rank;
    set_log_rank(rank, options.size);
    run(argv[1], options);
  } catch (const std::exception& error) {
    const auto* lost = dynamic_cast<const PeerLostError*>(&error);
    const char* type = lost != nullptr                                        ? "PeerLostError"
                       : dynamic_cast<const TimeoutError*>(&error) != nullptr ? "TimeoutError"
                       : dynamic_cast<const CommError*>(&error) != nullptr    ? "CommError"
                       : dynamic_cast<const ConfigError*>(&error) != nullptr  ? "ConfigError"
                                                                              : "other error";
    text = fmt::format("{}: {}", type, error.what());
    status = exit_code(error);
  }
  // One write, so that ranks' lines are not mixed.
  const std::string line = fmt::format("rank {}: {}\n", rank, text);
  std::fwrite(line.data(), 1, line.size(), stdout);
  std::fflush(stdout);
  return status;
}

}  // namespace
}  // namespace trireme

int main(int argc, char** argv) { return trireme::run_and_tell(argc, argv); }
