// Copyright 2026 The Trireme authors
// SPDX-License-Identifier: Apache-2.0

// How a step ends on all ranks when one of them does not come to its end.

#include <fcntl.h>
#include <fmt/format.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <unistd.h>

#include <csignal>
#include <cstdlib>
#include <functional>
#include <memory>
#include <optional>
#include <sstream>
#include <stdexcept>
#include <string>
#include <utility>
#include <vector>

#include "tests/support/error_text.h"
#include "tests/support/ranks.h"
#include "tests/support/replica_models.h"
#include "trireme/base/error.h"
#include "trireme/comm/group.h"
#include "trireme/parallel/data/replica.h"

namespace trireme {
namespace {

using ::testing::AllOf;
using testing::Chain;
using testing::failure_of;
using ::testing::HasSubstr;
using testing::run_threads;
using ::testing::StartsWith;

constexpr std::int64_t kRows = 3;
// One block of f64.
constexpr std::int64_t kBucketBytes = std::int64_t{32} << 10;
const std::vector<std::string> kEngines{"shm", "gloo"};

// A whole step of a rank on samples of its own.
void run_step(Chain& chain, Replica& replica, const Group& group) {
  chain.zero_grad();
  for (const std::int64_t m : replica.micro_batches()) {
    replica.backward(chain.loss((100 * group.rank() + m) * kRows, kRows));
  }
  replica.finish_gradients();
}

// Throws in the backward pass between the first and the second layer: later layers' gradients are
// on their way then.
void throw_in_backward(Chain& chain) {
  chain.between = [](std::size_t layer, const at::Tensor& x) {
    if (layer > 0) return x;
    const at::Tensor here = x * 1;
    here.register_hook(
        [](const at::Tensor&) -> at::Tensor { throw std::runtime_error("out of luck"); });
    return here;
  };
}

TEST(ReplicaFailure, AnExceptionInBackwardReachesTheOthersByName) {
  for (const std::string& engine : kEngines) {
    for (const std::int64_t micro_batches : {3, 6}) {
      run_threads(
          3,
          [&](Group& group) {
            Chain chain(4);
            Replica replica(chain, group,
                            {.micro_batches = micro_batches, .bucket_bytes = kBucketBytes});
            const std::string error = failure_of([&] {
              run_step(chain, replica, group);  // rank 1 may leave before others come to its end
              if (group.rank() == 1) throw_in_backward(chain);
              run_step(chain, replica, group);
            });
            if (group.rank() == 1) {
              EXPECT_THAT(error, HasSubstr("out of luck"));
              EXPECT_THAT(failure_of([&] { replica.finish_gradients(); }),
                          AllOf(HasSubstr("backward pass"), HasSubstr("out of luck")))
                  << "half a step's gradients are not to be had";
              EXPECT_THAT(failure_of([&] { replica.backward(chain.loss(0, kRows)); }),
                          HasSubstr("out of luck"));
            } else {
              EXPECT_THAT(error, AllOf(StartsWith("CommError: "), HasSubstr("rank 1 left"),
                                       HasSubstr("out of luck")));
            }
          },
          engine);
    }
  }
}

TEST(ReplicaFailure, AnExceptionInBackwardSpoilsTheStepOfAWorldOfOneToo) {
  run_threads(1, [](Group& group) {
    Chain chain(2);
    Replica replica(chain, group);
    throw_in_backward(chain);
    EXPECT_THAT(failure_of([&] { replica.backward(chain.loss(0, kRows)); }),
                HasSubstr("out of luck"));
    EXPECT_THAT(failure_of([&] { replica.finish_gradients(); }), HasSubstr("out of luck"));
  });
}

// Nothing is pending on rank 1: its micro-batch of two, or its buckets so far, are done with.
TEST(ReplicaFailure, DestroyedInTheMiddleOfAStepTellsTheOthers) {
  for (const std::string& engine : kEngines) {
    for (const std::int64_t micro_batches : {3, 6}) {
      run_threads(
          3,
          [&](Group& group) {
            Chain chain(3);
            std::optional<Replica> replica(
                std::in_place, chain, group,
                ReplicaOptions{.micro_batches = micro_batches, .bucket_bytes = kBucketBytes});
            if (group.rank() == 1) {
              run_step(chain, *replica, group);
              replica->backward(chain.loss(0, kRows));
              replica.reset();
              return;
            }
            EXPECT_THAT(failure_of([&] {
                          run_step(chain, *replica, group);
                          run_step(chain, *replica, group);
                        }),
                        AllOf(StartsWith("CommError: "), HasSubstr("rank 1 left"),
                              HasSubstr("in the middle of a step")));
          },
          engine);
    }
  }
}

TEST(ReplicaFailure, DestroyedBetweenStepsDisturbsNoOne) {
  run_threads(2, [](Group& group) {
    Chain chain(2);
    std::optional<Replica> replica(std::in_place, chain, group);
    run_step(chain, *replica, group);
    replica.reset();
    group.barrier();
  });
}

// The usual order at the end of a program that stops in the middle of a step.
TEST(ReplicaFailure, MayBeDestroyedAfterItsWorldWasClosed) {
  run_threads(2, [](Group& group) {
    Chain chain(2);
    Replica replica(chain, group, {.micro_batches = 4});
    replica.backward(chain.loss(0, kRows));
    group.barrier();
    EXPECT_EQ(failure_of([&] { group.close(); }), "no error");
  });
}

TEST(ReplicaFailure, ABackwardPassThatCameTooSoonSpoilsTheStep) {
  run_threads(1, [](Group& group) {
    Chain chain(2);
    Replica replica(chain, group);
    chain.loss(0, kRows).backward();
    EXPECT_THAT(failure_of([&] { chain.loss(0, kRows).backward(); }),
                HasSubstr("already on its way"));
    EXPECT_THAT(failure_of([&] { replica.finish_gradients(); }), HasSubstr("already on its way"))
        << "the gradients of two steps are mixed";
  });
}

// Processes of this program, each a rank: what it says is its result.
struct RankArguments {
  int rank = 0, size = 0, port = 0, listen_fd = -1, result_fd = -1;
  std::string engine;
};

constexpr const char* kRankVariable = "TRIREME_TEST_REPLICA_RANK";

std::string run_rank_until_killed(const WorldOptions& options) {
  const std::unique_ptr<Group> group = join_world(options);
  Chain chain(4);
  Replica replica(chain, *group, {.bucket_bytes = kBucketBytes});
  run_step(chain, replica, *group);
  if (group->rank() == 1) {
    chain.between = [&](std::size_t layer, const at::Tensor& x) {
      if (layer > 0) return x;
      const at::Tensor here = x * 1;
      here.register_hook([](const at::Tensor&) { std::raise(SIGKILL); });
      return here;
    };
  }
  const std::string error = failure_of([&] { run_step(chain, replica, *group); });
  return error + "\n" + failure_of([&] { run_step(chain, replica, *group); });
}

// The body of a rank's process; not a test of its own.
TEST(ReplicaFailure, DISABLED_RankOfAnotherTest) {
  const char* text = std::getenv(kRankVariable);
  ASSERT_NE(text, nullptr);
  RankArguments own;
  std::istringstream(text) >> own.rank >> own.size >> own.port >> own.listen_fd >> own.result_fd >>
      own.engine;
  testing::Listener listener{own.listen_fd, own.port};
  const WorldOptions options =
      testing::world_options(own.size, listener, own.engine).at(static_cast<std::size_t>(own.rank));
  const std::string result = run_rank_until_killed(options);
  EXPECT_EQ(::write(own.result_fd, result.data(), result.size()),
            static_cast<ssize_t>(result.size()));
}

// LibTorch does not survive a fork: the child becomes a fresh copy of this program.
testing::RankProcess start_rank(const RankArguments& own) {
  return testing::RankProcess(own.rank, [own]() -> std::string {
    RankArguments child = own;
    child.result_fd = testing::RankProcess::result_fd();
    if (own.rank == 0) {
      ::fcntl(own.listen_fd, F_SETFD, 0);
    } else {
      ::close(own.listen_fd);
      child.listen_fd = -1;
    }
    const std::string text = fmt::format("{} {} {} {} {} {}", child.rank, child.size, child.port,
                                         child.listen_fd, child.result_fd, child.engine);
    ::setenv(kRankVariable, text.c_str(), 1);
    ::dup2(::open("/dev/null", O_WRONLY | O_CLOEXEC), STDOUT_FILENO);
    ::execl("/proc/self/exe", "replica_rank", "--gtest_also_run_disabled_tests",
            "--gtest_filter=ReplicaFailure.DISABLED_RankOfAnotherTest", nullptr);
    return "exec failed";
  });
}

TEST(ReplicaFailure, AKilledRankIsNamedByTheOthersWithinTheDeadline) {
  for (const std::string& engine : kEngines) {
    const testing::Listener listener = testing::listen_on_free_port();
    std::vector<testing::RankProcess> ranks;
    for (int rank = 0; rank < 3; ++rank) {
      ranks.push_back(start_rank({rank, 3, listener.port, listener.fd, -1, engine}));
    }
    ::close(listener.fd);
    EXPECT_EQ(ranks[1].result(), "signal 9") << engine;
    const Deadline deadline = Deadline::after(testing::kLossTime);
    for (const std::size_t survivor : {0U, 2U}) {
      const std::string result = ranks[survivor].result(deadline);
      const std::string lost = "PeerLostError 1: ";
      EXPECT_THAT(result, AllOf(StartsWith(lost), HasSubstr("\n" + lost)))
          << engine << ", rank " << survivor;
    }
  }
}

}  // namespace
}  // namespace trireme
