// Copyright 2026 The Trireme authors
// SPDX-License-Identifier: Apache-2.0

// Random sequences of operations, on the world and its parts, blocking and as Work, many under way
// at once, against the model of plain vectors. 100 sequences per placement; RC_PARAMS=max_success=N
// asks for more, and what a failure prints as "reproduce" repeats it.

#include <gtest/gtest.h>
#include <rapidcheck/gtest.h>

#include <algorithm>
#include <cstdint>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "tests/support/living_world.h"
#include "tests/support/run_operation.h"
#include "trireme/topology/mesh.h"

namespace trireme {
namespace {

using testing::Case;
using testing::Kind;
using testing::LivingWorld;
using testing::one_host;
using testing::Operation;
using testing::Placement;
using testing::RunningOperation;

// Groups of one split: the ranks of each.
using Family = std::vector<std::vector<int>>;

// Choices that follow from one number.
class Dice {
 public:
  explicit Dice(std::uint64_t seed) : state_(seed) {}
  std::int64_t below(std::int64_t n) {
    state_ += 0x9e3779b97f4a7c15u;
    std::uint64_t x = (state_ ^ (state_ >> 30)) * 0xbf58476d1ce4e5b9u;
    x = (x ^ (x >> 27)) * 0x94d049bb133111ebu;
    return static_cast<std::int64_t>((x ^ (x >> 31)) % static_cast<std::uint64_t>(n));
  }
  bool once_in(int n) { return below(n) == 0; }

 private:
  std::uint64_t state_;
};

// The world, every second rank, neighbours along an axis, and thirds without rank 0.
constexpr int kNumFamilies = 4;
int color_of(int family, int rank, int n) {
  return family == 1 ? rank % 2 : rank == 0 ? -1 : rank * 3 / n;
}
Mesh mesh_of(int n) { return n % 2 == 0 ? Mesh({{"dp", n / 2}, {"tp", 2}}) : Mesh({{"tp", n}}); }
std::vector<Family> families_of(int n) {
  std::vector<Family> all(kNumFamilies);
  all[0].emplace_back();
  for (int rank = 0; rank < n; ++rank) all[0][0].push_back(rank);
  all[2] = mesh_of(n).all_groups("tp");
  for (const int family : {1, 3}) {
    for (int color = 0; color < 3; ++color) {
      std::vector<int> ranks;
      for (int rank = 0; rank < n; ++rank) {
        if (color_of(family, rank, n) == color) ranks.push_back(rank);
      }
      if (!ranks.empty()) all[static_cast<std::size_t>(family)].push_back(ranks);
    }
  }
  return all;
}
std::string make_parts(LivingWorld::Rank& rank) {
  Group& world = *rank.world;
  rank.parts.push_back(nullptr);  // the world itself
  rank.parts.push_back(world.split_by_color("halves", color_of(1, world.rank(), world.size())));
  rank.parts.push_back(world.split(mesh_of(world.size()), "tp"));
  rank.parts.push_back(world.split_by_color("thirds", color_of(3, world.rank(), world.size())));
  return "";
}

// One operation on each group of a family at once, or a new family.
struct Step {
  std::size_t family = 0;
  std::vector<int> split;   // ranks of the new one; empty for an operation
  std::vector<Case> cases;  // by group of the family
  int finishes = 0;         // how many of the operations under way are waited for afterwards
  std::uint64_t which = 0;
};

std::int64_t any_count(Dice& dice) {
  const std::int64_t most[] = {1, 2, 20, 20, 300, 300, 3000, 3000, 3000, 20000};
  return dice.below(most[dice.below(10)]);
}

void choose_counts(Operation& operation, int n, Dice& dice) {
  operation.even = dice.once_in(2);
  const auto add = [&](int number) {
    const std::int64_t same = any_count(dice);
    for (int i = 0; i < number; ++i) {
      operation.counts.push_back(operation.even ? same : any_count(dice));
    }
  };
  switch (operation.kind) {
    case Kind::kBarrier:
    case Kind::kMessages:
      return;
    case Kind::kAllToAll:
      return add(n * n);
    case Kind::kAllReduceMany:
    case Kind::kBroadcastMany:
      return add(1 + static_cast<int>(dice.below(5)));
    case Kind::kReduceScatter:
    case Kind::kAllGather:
    case Kind::kGather:
    case Kind::kScatter:
    case Kind::kShift:
      return add(n);
    default:
      return add(1);
  }
}

Operation any_operation(int n, int number, Dice dice) {
  Operation operation;
  operation.kind = static_cast<Kind>(dice.below(testing::kNumKinds));
  operation.dtype = testing::kDTypes[dice.below(std::size(testing::kDTypes))];
  do {
    operation.op = testing::kReduceOps[dice.below(std::size(testing::kReduceOps))];
  } while (!testing::is_defined(operation.op, operation.dtype));
  operation.work = dice.once_in(2);
  operation.in_place = dice.once_in(2) && (operation.kind == Kind::kReduceScatter ||
                                           operation.kind == Kind::kAllGather);
  // Up to here the same on every group of a family.
  operation.root = static_cast<int>(dice.below(n));
  operation.number = number;
  const std::uint32_t memories[] = {0, 0, 0xff, static_cast<std::uint32_t>(dice.below(256))};
  operation.shared = memories[dice.below(4)];
  choose_counts(operation, n, dice);
  const std::int64_t messages =
      operation.kind == Kind::kMessages ? dice.below(std::int64_t{4} * n) : 0;
  for (std::int64_t i = 0; i < messages; ++i) {
    operation.messages.push_back({static_cast<int>(dice.below(n)), static_cast<int>(dice.below(n)),
                                  static_cast<int>(dice.below(3)), any_count(dice)});
  }
  return operation;
}

// Each choice makes a step.
std::vector<Step> sequence_of(const std::vector<std::uint64_t>& choices, int n) {
  std::vector<Family> families = families_of(n);
  std::vector<Step> steps;
  for (const std::uint64_t choice : choices) {
    Dice dice(choice);
    Step step;
    const int number = static_cast<int>(steps.size() + 1) * 10;
    if (dice.once_in(24)) {
      for (int rank = 0; rank < n; ++rank) {
        if (dice.once_in(2)) step.split.push_back(rank);
      }
      if (step.split.empty()) step.split.push_back(static_cast<int>(dice.below(n)));
      families.push_back({step.split});
    } else {
      // The world as often as all its parts.
      const auto part = dice.below(static_cast<std::int64_t>(families.size()));
      step.family = dice.once_in(2) ? 0 : static_cast<std::size_t>(part);
      const auto seed = static_cast<std::uint64_t>(dice.below(std::int64_t{1} << 60));
      for (const std::vector<int>& ranks : families[step.family]) {
        const int group = static_cast<int>(step.cases.size());
        step.cases.push_back(testing::model(
            any_operation(static_cast<int>(ranks.size()), number + group, Dice(seed)),
            static_cast<int>(ranks.size())));
      }
      step.finishes = static_cast<int>(dice.below(3));
      step.which = static_cast<std::uint64_t>(dice.below(1000));
    }
    steps.push_back(std::move(step));
  }
  return steps;
}

// What one rank does of a sequence. name is another for every one.
std::string run_sequence(LivingWorld::Rank& rank, const std::vector<Step>& steps,
                         const std::vector<Family>& known, const std::string& name) {
  std::vector<Family> families = known;
  std::vector<std::unique_ptr<Group>> splits;  // outlive what runs on them
  std::vector<std::unique_ptr<RunningOperation>> running;
  const int own = rank.world->rank();
  const auto group_of = [&](std::size_t family) -> Group* {
    if (family == 0) return rank.world.get();
    return family < known.size() ? rank.parts[family].get() : splits[family - known.size()].get();
  };
  std::string wrong;
  const auto finish = [&](std::uint64_t which) {
    const auto at = running.begin() + static_cast<std::ptrdiff_t>(which % running.size());
    wrong += (*at)->finish();
    running.erase(at);
  };
  for (const Step& step : steps) {
    if (!step.split.empty()) {
      const bool is_in = std::find(step.split.begin(), step.split.end(), own) != step.split.end();
      splits.push_back(is_in ? rank.world->split(name + std::to_string(splits.size()), step.split)
                             : nullptr);
      families.push_back({step.split});
      continue;
    }
    for (std::size_t i = 0; i < step.cases.size(); ++i) {
      const std::vector<int>& ranks = families[step.family][i];
      if (std::find(ranks.begin(), ranks.end(), own) == ranks.end()) continue;
      running.push_back(std::make_unique<RunningOperation>(*group_of(step.family), step.cases[i]));
    }
    for (int i = 0; i < step.finishes && !running.empty(); ++i) finish(step.which);
  }
  while (!running.empty()) finish(0);
  return wrong;
}

class OperationSequences : public ::testing::TestWithParam<Placement> {};

TEST_P(OperationSequences, GiveWhatTheModelGives) {
  const int n = GetParam().size();
  const std::vector<Family> families = families_of(n);
  LivingWorld world(GetParam(), make_parts);
  int sequences = 0;
  std::string first;  // RapidCheck shows only what the last of its attempts said
  rc::detail::checkGTest([&] {
    const auto length = *rc::gen::inRange(5, 21);
    const auto choices = *rc::gen::container<std::vector<std::uint64_t>>(
        static_cast<std::size_t>(length),
        rc::gen::resize(100, rc::gen::arbitrary<std::uint64_t>()));
    const std::vector<Step> steps = sequence_of(choices, n);
    const std::string name = "sequence " + std::to_string(++sequences) + " ";
    const std::string wrong = world.run(
        [&](LivingWorld::Rank& rank) { return run_sequence(rank, steps, families, name); });
    if (first.empty()) first = wrong;
    if (!wrong.empty()) RC_FAIL(wrong);
  });
  EXPECT_EQ(first, "") << "before anything was shrunk";
}

INSTANTIATE_TEST_SUITE_P(Placements, OperationSequences,
                         ::testing::Values(one_host("shm", 2), one_host("shm", 3),
                                           one_host("shm", 4), one_host("shm", 7),
                                           one_host("gloo", 2), one_host("gloo", 3),
                                           one_host("gloo", 6), Placement{"shm+gloo", {0, 0, 1}},
                                           Placement{"shm+gloo", {0, 1, 0, 1}},
                                           Placement{"shm+gloo", {0, 0, 1, 2, 1, 0}}),
                         [](const auto& test) { return testing::placement_name(test.param); });

}  // namespace
}  // namespace trireme
