// Copyright 2026 The Trireme authors
// SPDX-License-Identifier: Apache-2.0

// Schedules at random: what the verifier accepts computes the gradients of one rank, and what it
// refuses nobody runs.

#include <fmt/format.h>
#include <gtest/gtest.h>
#include <rapidcheck.h>

#include <algorithm>
#include <ostream>
#include <random>
#include <string>
#include <utility>
#include <vector>

#include "tests/support/living_world.h"
#include "tests/support/pipeline_nets.h"
#include "trireme/base/error.h"
#include "trireme/plan/generate_schedule.h"
#include "trireme/plan/verify_schedule.h"

namespace trireme {
namespace {

using plan::Action;
using plan::Instruction;
using plan::Schedule;
using testing::LivingWorld;

class Random {
 public:
  explicit Random(std::uint32_t seed) : engine_(seed) {}
  // 0 .. count - 1.
  int below(std::size_t count) {
    return std::uniform_int_distribution<int>(0, static_cast<int>(count) - 1)(engine_);
  }
  bool one_in(int count) { return below(static_cast<std::size_t>(count)) == 0; }

 private:
  std::mt19937 engine_;
};

// What may come next of a step in any order that the computation itself allows.
class FreeOrder {
 public:
  FreeOrder(int stages, int micro_batches)
      : micro_batches_(micro_batches), done_(static_cast<std::size_t>(stages)) {}

  std::vector<Instruction> ready() const {
    std::vector<Instruction> result;
    for (int stage = 0; stage < stages(); ++stage) {
      const Done& here = of(stage);
      const bool comes = stage == 0 || of(stage - 1).forward > here.forward;
      if (here.forward < micro_batches_ && comes) {
        result.push_back({Action::kForward, stage, here.forward});
      }
      const int returned = stage + 1 == stages() ? here.forward : of(stage + 1).input;
      if (here.input < std::min(here.forward, returned)) {
        result.push_back({Action::kBackwardInput, stage, here.input});
        if (here.weight == here.input) result.push_back({Action::kBackward, stage, here.input});
      }
      if (here.weight < here.input) {
        result.push_back({Action::kBackwardWeight, stage, here.weight});
      }
    }
    return result;
  }
  void take(const Instruction& i) {
    Done& here = done_[static_cast<std::size_t>(i.stage)];
    if (i.action == Action::kForward) ++here.forward;
    if (i.action == Action::kBackwardInput || i.action == Action::kBackward) ++here.input;
    if (i.action == Action::kBackwardWeight || i.action == Action::kBackward) ++here.weight;
  }

 private:
  // Micro-batches.
  struct Done {
    int forward = 0, input = 0, weight = 0;
  };
  int stages() const { return static_cast<int>(done_.size()); }
  const Done& of(int stage) const { return done_[static_cast<std::size_t>(stage)]; }

  const int micro_batches_;
  std::vector<Done> done_;
};

// Stages anywhere, backward passes whole or in parts.
Schedule free_schedule(int ranks, Random& random) {
  const int stages = ranks + random.below(5);
  Schedule schedule{.name = "free", .ranks = ranks, .micro_batches = 1 + random.below(6)};
  for (int stage = 0; stage < stages; ++stage) {
    schedule.rank_of_stage.push_back(stage < ranks ? stage
                                                   : random.below(static_cast<std::size_t>(ranks)));
  }
  for (int stage = 0; stage < stages; ++stage) {
    std::swap(schedule.rank_of_stage[static_cast<std::size_t>(stage)],
              schedule.rank_of_stage[static_cast<std::size_t>(
                  random.below(static_cast<std::size_t>(stages)))]);
  }
  schedule.of_rank.resize(static_cast<std::size_t>(ranks));
  FreeOrder order(stages, schedule.micro_batches);
  for (auto ready = order.ready(); !ready.empty(); ready = order.ready()) {
    const Instruction next = ready[static_cast<std::size_t>(random.below(ready.size()))];
    order.take(next);
    const int rank = schedule.rank_of_stage[static_cast<std::size_t>(next.stage)];
    schedule.of_rank[static_cast<std::size_t>(rank)].push_back(next);
  }
  return with_communication(schedule, {});
}

Schedule named_schedule(int ranks, Random& random) {
  std::vector<std::string> names = plan::schedule_names();
  std::erase(names, "streaming");
  plan::ScheduleRequest request{.name = names[static_cast<std::size_t>(random.below(names.size()))],
                                .ranks = ranks};
  request.micro_batches = 1 + random.below(9);
  if (request.name == "interleaved") request.chunks = 1 + random.below(3);
  return with_communication(generate_schedule(request), {});
}

// Swaps neighbours, moves one within its rank or to another, drops or repeats one.
void mutate(Schedule& schedule, Random& random) {
  auto& list = schedule.of_rank[static_cast<std::size_t>(random.below(schedule.of_rank.size()))];
  if (list.size() < 2) return;
  const auto at = list.begin() + random.below(list.size() - 1);
  const Instruction instruction = *at;
  const int kind = random.below(20);
  if (kind < 12) return std::iter_swap(at, at + 1);
  if (kind != 19) list.erase(at);
  if (kind == 18) return;
  auto& other =
      kind == 17 ? schedule.of_rank[static_cast<std::size_t>(random.below(schedule.of_rank.size()))]
                 : list;
  other.insert(other.begin() + random.below(other.size() + 1), instruction);
}

bool is_good(const Schedule& schedule) {
  try {
    verify_schedule(schedule, {}, {});
    return true;
  } catch (const ConfigError&) {
    return false;
  }
}

// Far from where it began, by steps that the verifier accepts.
int walk(Schedule& schedule, Random& random) {
  int steps = 0;
  for (int tries = 0; tries < 60; ++tries) {
    Schedule changed = schedule;
    mutate(changed, random);
    if (changed == schedule || !is_good(changed)) continue;
    schedule = std::move(changed);
    ++steps;
  }
  return steps;
}

std::string text_of(const Schedule& schedule) {
  std::string text = fmt::format("{} {}\n", schedule.name, schedule.micro_batches);
  for (const std::vector<Instruction>& list : schedule.of_rank) {
    for (const Instruction& instruction : list) text += to_string(instruction) + " ";
    text += "\n";
  }
  return text;
}

struct Case {
  std::string engine;
  int ranks = 1;
  friend std::ostream& operator<<(std::ostream& out, const Case& c) {
    return out << c.engine << " " << c.ranks;
  }
};

class PipelineSchedules : public ::testing::TestWithParam<Case> {};

TEST_P(PipelineSchedules, WhatIsAcceptedGivesTheGradientsOfOneRank) {
  const auto& [engine, ranks] = GetParam();
  LivingWorld world(testing::one_host(engine, ranks),
                    [](LivingWorld::Rank&) { return std::string(); });
  const bool held = rc::check([&](std::uint32_t seed) {
    Random random(seed);
    const bool is_free = random.one_in(2);
    Schedule schedule = is_free ? free_schedule(ranks, random) : named_schedule(ranks, random);
    RC_PRE(is_good(schedule));
    const int steps = walk(schedule, random);
    RC_CLASSIFY(is_free, "free");
    RC_CLASSIFY(steps > 5, "changed in more than 5 steps");
    RC_LOG() << text_of(schedule);
    const std::string kind = random.one_in(2) ? "tokens" : "images";
    testing::JoinedStep joined;
    const std::string wrong = world.run([&](LivingWorld::Rank& rank) {
      Pipeline pipeline(testing::make_net(kind), *rank.world,
                        {.schedule = schedule, .micro_batches = schedule.micro_batches});
      joined.add(pipeline, testing::run_step(pipeline, kind));
      return std::string();
    });
    RC_ASSERT(wrong == "");
    RC_ASSERT(difference(joined.step(), testing::one_rank_step(kind, schedule.micro_batches)) ==
              "");
  });
  EXPECT_TRUE(held);
}

INSTANTIATE_TEST_SUITE_P(Ranks, PipelineSchedules,
                         ::testing::Values(Case{"shm", 2}, Case{"shm", 3}, Case{"gloo", 2},
                                           Case{"gloo", 3}),
                         [](const auto& ranks) {
                           return fmt::format("{}_{}", ranks.param.engine, ranks.param.ranks);
                         });

}  // namespace
}  // namespace trireme
