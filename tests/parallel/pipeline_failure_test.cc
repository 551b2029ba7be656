// Copyright 2026 The Trireme authors
// SPDX-License-Identifier: Apache-2.0

// How a pipeline's step ends on all ranks when one of them does not come to its end.

#include <fcntl.h>
#include <fmt/format.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <unistd.h>

#include <csignal>
#include <memory>
#include <optional>
#include <stdexcept>
#include <string>
#include <utility>
#include <vector>

#include "tests/support/error_text.h"
#include "tests/support/pipeline_nets.h"
#include "tests/support/ranks.h"
#include "trireme/base/error.h"
#include "trireme/comm/group.h"
#include "trireme/parallel/pipeline/pipeline.h"
#include "trireme/parallel/pipeline/pipeline_executor.h"
#include "trireme/plan/generate_schedule.h"

namespace trireme {
namespace {

using ::testing::AllOf;
using testing::failure_of;
using ::testing::HasSubstr;
using ::testing::MatchesRegex;
using testing::run_threads;
using ::testing::StartsWith;

constexpr int kRanks = 3;
const std::vector<std::string> kEngines{"shm", "gloo"};

// A rank of programs/pipeline_rank.cc.
testing::RankProcess start_rank(int rank, const testing::Listener& listener,
                                const std::vector<std::string>& arguments) {
  return testing::RankProcess(rank, [=, port = listener.port, fd = listener.fd]() -> std::string {
    if (rank == 0) {
      ::fcntl(fd, F_SETFD, 0);
    } else {
      ::close(fd);
    }
    std::vector<std::string> text{"pipeline_rank",
                                  std::to_string(rank),
                                  std::to_string(kRanks),
                                  std::to_string(port),
                                  std::to_string(rank == 0 ? fd : -1),
                                  std::to_string(testing::RankProcess::result_fd())};
    text.insert(text.end(), arguments.begin(), arguments.end());
    std::vector<char*> argv;
    for (std::string& argument : text) argv.push_back(argument.data());
    argv.push_back(nullptr);
    ::dup2(::open("/dev/null", O_WRONLY | O_CLOEXEC), STDOUT_FILENO);
    ::execv(TRIREME_PIPELINE_RANK, argv.data());
    return "exec failed";
  });
}

std::vector<testing::RankProcess> start_ranks(const std::vector<std::string>& arguments) {
  const testing::Listener listener = testing::listen_on_free_port();
  std::vector<testing::RankProcess> ranks;
  for (int rank = 0; rank < kRanks; ++rank) {
    ranks.push_back(start_rank(rank, listener, arguments));
  }
  ::close(listener.fd);
  return ranks;
}

std::string first_line(const std::string& text) { return text.substr(0, text.find('\n')); }

TEST(PipelineFailure, AKilledRankIsNamedWithWhatItWasAt) {
  for (const std::string& engine : kEngines) {
    for (const std::string pass : {"F", "B"}) {
      std::vector<testing::RankProcess> ranks =
          start_ranks({engine, std::to_string(SIGKILL), pass, "3"});
      EXPECT_EQ(ranks[1].result(), "signal 9") << engine;
      const Deadline deadline = Deadline::after(testing::kLossTime);
      for (const std::size_t survivor : {0U, 2U}) {
        const std::string result = ranks[survivor].result(deadline);
        const std::string at = fmt::format("rank {0} (stage {0}) was at ", survivor);
        EXPECT_THAT(first_line(result), AllOf(StartsWith("PeerLostError 1: "), HasSubstr(at),
                                              HasSubstr("; rank 1 (stage 1) had done "),
                                              HasSubstr("was to go on with 1")))
            << engine << " " << pass;
        EXPECT_EQ(result, first_line(result) + "\n" + first_line(result)) << "ever after";
      }
    }
  }
}

TEST(PipelineFailure, AStoppedRankIsNamedAtTheDeadline) {
  for (const std::string& engine : kEngines) {
    std::vector<testing::RankProcess> ranks =
        start_ranks({engine, std::to_string(SIGSTOP), "B", "1"});
    for (const std::size_t survivor : {0U, 2U}) {
      const std::string result = first_line(ranks[survivor].result());
      EXPECT_THAT(result, AllOf(HasSubstr("rank 1"),
                                HasSubstr(fmt::format("; rank {0} (stage {0}) was at ", survivor))))
          << engine;
    }
  }
}

// The others' lines, where rank 1's loss or layers end with what f throws.
template <typename F>
void expect_words(const std::string& engine, const F& f, const std::string& words) {
  run_threads(
      2,
      [&](Group& world) {
        Pipeline pipeline(testing::make_net("plain"), world, {.micro_batches = 5});
        std::string error;
        try {
          error = failure_of([&] {
            pipeline.step([](std::int64_t m) { return testing::net_inputs("plain", m); },
                          [&](const at::Tensor& y, std::int64_t m) {
                            if (m == 2) f();
                            return y.sum();
                          });
          });
        } catch (int) {
          error = "a number";
        }
        if (world.rank() == 1) {
          EXPECT_THAT(error, AnyOf(HasSubstr(words), std::string("a number")));
          EXPECT_THAT(failure_of([&] { testing::run_step(pipeline, "plain"); }),
                      AllOf(HasSubstr(words), HasSubstr("no going on")));
          return;
        }
        EXPECT_THAT(error,
                    AllOf(StartsWith("CommError: "), HasSubstr("rank 1 (stage 1) was at 1F2"),
                          HasSubstr(words), HasSubstr("; rank 0 (stage 0) was at ")))
            << engine;
        EXPECT_EQ(failure_of([&] { testing::run_step(pipeline, "plain"); }), error);
      },
      engine);
}

TEST(PipelineFailure, WhatAStageThrowsReachesTheOthersWithItsPlace) {
  for (const std::string& engine : kEngines) {
    expect_words(
        engine, [] { throw std::runtime_error("out of luck\nand more"); }, "out of luck");
    expect_words(
        engine, [] { throw 42; }, "an exception of an unknown kind");
  }
}

// One that is not the group's own, which nobody else knows of.
TEST(PipelineFailure, ACommErrorOfAStageEndsTheOthersToo) {
  run_threads(2, [&](Group& world) {
    Pipeline pipeline(testing::make_net("plain"), world, {.micro_batches = 5});
    EXPECT_THAT(failure_of([&] {
                  pipeline.step([](std::int64_t m) { return testing::net_inputs("plain", m); },
                                [&](const at::Tensor&, std::int64_t) -> at::Tensor {
                                  throw CommError("a file server is away");
                                });
                }),
                AllOf(StartsWith("CommError: "), HasSubstr("a file server is away")));
  });
}

// Sends of a rank that is far ahead, and buffers of receives that nobody waits for any more.
TEST(PipelineFailure, MessagesUnderWayOutliveTheRun) {
  for (const std::string& engine : kEngines) {
    run_threads(
        2,
        [](Group& world) {
          constexpr int kMany = 40;
          std::map<int, Stage> stages;
          const int rank = world.rank();
          stages[rank].forward = [rank](std::int64_t m, const std::vector<at::Tensor>&) {
            if (rank == 0) return StageOutput{.activations = {at::full({300, 301}, double(m))}};
            if (m == 1) throw std::runtime_error("enough");
            return StageOutput{};
          };
          plan::Schedule schedule = plan::with_communication(
              plan::generate_schedule({.name = "streaming", .ranks = 2, .micro_batches = kMany}),
              {.train = false});
          auto& last = schedule.of_rank[1];
          std::stable_partition(last.begin(), last.begin() + 20,
                                [](const auto& i) { return plan::is_receive(i.action); });
          std::optional<PipelineExecutor> executor(std::in_place, world, std::move(stages));
          EXPECT_THAT(failure_of([&] { executor->run(schedule); }), HasSubstr("enough"));
          executor.reset();
        },
        engine);
  }
}

// More sends than may be under way, which the other rank takes late.
TEST(PipelineFailure, ARankMayBeFarAheadOfTheNext) {
  for (const std::string& engine : kEngines) {
    run_threads(
        2,
        [](Group& world) {
          constexpr int kMany = 60;
          std::map<int, Stage> stages;
          std::vector<double> seen;
          const int rank = world.rank();
          stages[rank].forward = [&, rank](std::int64_t m, const std::vector<at::Tensor>& inputs) {
            if (rank == 0) {
              return StageOutput{.activations = {at::full({200, 301}, double(m)), at::Tensor(),
                                                 at::full({3}, double(m) + 0.5)}};
            }
            seen.push_back(inputs[0].sum().item<double>() / (200 * 301));
            EXPECT_FALSE(inputs[1].defined());
            EXPECT_EQ(inputs[2][2].item<double>(), double(m) + 0.5);
            return StageOutput{};
          };
          const plan::Schedule schedule = plan::with_communication(
              plan::generate_schedule({.name = "streaming", .ranks = 2, .micro_batches = kMany}),
              {.train = false});
          PipelineExecutor executor(world, std::move(stages));
          for (int run = 0; run < 2; ++run) {
            executor.run(schedule);
            world.barrier();
          }
          for (std::size_t i = 0; i < seen.size(); ++i) {
            EXPECT_EQ(seen[i], static_cast<double>(i % kMany));
          }
          EXPECT_EQ(seen.size(), rank == 0 ? 0U : std::size_t{2} * kMany);
        },
        engine);
  }
}

}  // namespace
}  // namespace trireme
