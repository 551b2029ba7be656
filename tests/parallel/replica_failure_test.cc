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
using testing::run_step;
using testing::run_threads;
using ::testing::StartsWith;

constexpr std::int64_t kRows = testing::kChainRows;
constexpr std::int64_t kBucketBytes = testing::kChainBucketBytes;
const std::vector<std::string> kEngines{"shm", "gloo"};

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

// LibTorch does not survive a fork: the child becomes a program of its own
// (programs/replica_rank.cc).
testing::RankProcess start_rank(int rank, int size, const testing::Listener& listener,
                                const std::string& engine) {
  return testing::RankProcess(rank, [=, port = listener.port, fd = listener.fd]() -> std::string {
    if (rank == 0) {
      ::fcntl(fd, F_SETFD, 0);
    } else {
      ::close(fd);
    }
    const std::string text[] = {std::to_string(rank), std::to_string(size), std::to_string(port),
                                std::to_string(rank == 0 ? fd : -1),
                                std::to_string(testing::RankProcess::result_fd())};
    ::dup2(::open("/dev/null", O_WRONLY | O_CLOEXEC), STDOUT_FILENO);
    ::execl(TRIREME_REPLICA_RANK, "replica_rank", text[0].c_str(), text[1].c_str(), text[2].c_str(),
            text[3].c_str(), text[4].c_str(), engine.c_str(), nullptr);
    return "exec failed";
  });
}

TEST(ReplicaFailure, AKilledRankIsNamedByTheOthersWithinTheDeadline) {
  for (const std::string& engine : kEngines) {
    const testing::Listener listener = testing::listen_on_free_port();
    std::vector<testing::RankProcess> ranks;
    for (int rank = 0; rank < 3; ++rank) {
      ranks.push_back(start_rank(rank, 3, listener, engine));
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
