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

#include <csignal>
#include <cstdio>
#include <functional>
#include <map>
#include <numeric>
#include <string>
#include <thread>
#include <utility>
#include <vector>

#include "tests/programs/rank_bodies.h"
#include "tests/support/error_text.h"
#include "tests/support/reference_tree.h"
#include "trireme/base/deadline.h"
#include "trireme/base/error.h"
#include "trireme/base/log.h"
#include "trireme/comm/group.h"
#include "trireme/comm/mpi/mpi_port.h"
#include "trireme/comm/mpi/mpi_support.h"
#include "trireme/comm/world_state.h"
#include "trireme/launch/environment.h"
#include "trireme/launch/init.h"

namespace trireme {
namespace {

using testing::Bytes;
using testing::distinct_data;
using testing::error_text;
using testing::expect;

constexpr std::chrono::milliseconds kTestDeadline = std::chrono::seconds(60);

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
    testing::operations(group);
    MPI_Recv(&in, 1, MPI_INT, MPI_ANY_SOURCE, 0, MPI_COMM_WORLD, MPI_STATUS_IGNORE);
    MPI_Wait(&sent, MPI_STATUS_IGNORE);
  });
  expect(next == (in + 2) % options.size, "the program's own message");
  MPI_Finalize();
}

// One rank of MPI is two ranks of the world, and the other none.
void two_ranks_in_one_process(const WorldOptions& options) {
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

// Below Group: two messages of one lane under way at once. MPI libraries ask the receiver for room
// for a long one, and so the short one behind it may complete first.
void overtaking(const WorldOptions& options) {
  GroupScope scope;
  scope.world = std::make_shared<WorldState>();
  WorldState& world = *scope.world;
  world.rank = options.rank;
  Meeting meeting = meet(options, FileDescriptor());
  world.members = meeting.members;
  world.control =
      std::make_unique<ControlPlane>(options.rank, std::move(meeting), world.latch, world.waits);
  const Deadline deadline = Deadline::after(kTestDeadline);
  world.mpi = make_mpi_mesh(options.rank, options.size, *world.control, world.latch, deadline);
  scope.name = "port";
  scope.rank = options.rank;
  scope.world_ranks.resize(static_cast<std::size_t>(options.size));
  std::iota(scope.world_ranks.begin(), scope.world_ranks.end(), 0);
  MpiPort port(scope);
  const OperationName name{Signature{}};
  const Lane lane{Lane::Purpose::kGather};
  const int next = (options.rank + 1) % options.size;
  const int last = (options.rank + options.size - 1) % options.size;
  for (int round = 0; round < 60; ++round) {
    const Bytes out_long = distinct_data(options.rank, 8000, DType::kU8);
    const Bytes out_short = distinct_data(options.rank + 100, 10, DType::kU8);
    Bytes in_long(8000);
    Bytes in_short(8000);
    const std::unique_ptr<Flight> flight = port.make_flight();
    flight->receive(last, lane, in_long.data(), in_long.size());
    flight->receive(last, lane, in_short.data(), in_short.size());
    flight->send(next, lane, out_long.data(), out_long.size());
    flight->send(next, lane, out_short.data(), out_short.size());
    flight->wait(name, deadline);
    in_short.resize(10);
    expect(in_long == distinct_data(last, 8000, DType::kU8), "a message that was overtaken");
    expect(in_short == distinct_data(last + 100, 10, DType::kU8), "a message that overtook");
  }
  world.control->say_goodbye();
  leave_mpi(*world.mpi, deadline);
}

void with_level(const WorldOptions& options, int level) {
  MPI_Init_thread(nullptr, nullptr, level, &level);
  in_a_world(options, [](Group& group) { group.barrier(); });
}

void run(const std::string& scenario, WorldOptions options) {
  const std::map<std::string, std::function<void(Group&)>> kBodies{
      {"operations", testing::operations},
      {"messages", testing::messages},
      {"groups", testing::groups},
      {"last_words", testing::last_words},
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
    in_a_world(options, testing::messages);
    return in_a_world(options, testing::messages);
  }
  if (scenario == "own_mpi") return beside_the_programs_own(options);
  if (scenario == "single") return with_level(options, MPI_THREAD_SINGLE);
  if (scenario == "overtaking") return overtaking(options);
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
    text = error_text(error);
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
