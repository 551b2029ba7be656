// Copyright 2026 The Trireme authors
// SPDX-License-Identifier: Apache-2.0

#include "trireme/topology/mesh.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <cstdint>
#include <map>

#include "trireme/base/error.h"

namespace trireme {
namespace {

using ::testing::ElementsAre;
using ::testing::HasSubstr;

constexpr int kMaxRanks = 64;
const std::vector<std::string> kNames = {"dp", "fsdp", "tp", "cp", "ep", "pp"};

// All lists of the given length whose product is size, ones included.
std::vector<std::vector<int>> factorisations(int size, std::size_t length) {
  if (length == 0)
    return size == 1 ? std::vector<std::vector<int>>{{}} : std::vector<std::vector<int>>{};
  std::vector<std::vector<int>> result;
  for (int first = 1; first <= size; ++first) {
    if (size % first != 0) continue;
    for (std::vector<int>& rest : factorisations(size / first, length - 1)) {
      rest.insert(rest.begin(), first);
      result.push_back(std::move(rest));
    }
  }
  return result;
}

std::vector<Axis> make_axes(const std::vector<std::string>& names, const std::vector<int>& sizes) {
  std::vector<Axis> axes;
  for (std::size_t i = 0; i < sizes.size(); ++i) axes.push_back({names[i], sizes[i]});
  return axes;
}

// The mesh as a table of coordinates, counted up like an odometer: no strides, no division.
class Model {
 public:
  explicit Model(std::vector<Axis> axes) : axes_(std::move(axes)) {
    std::vector<int> at(axes_.size(), 0);
    while (true) {
      coordinates.push_back(at);
      std::size_t i = axes_.size();
      while (i > 0 && ++at[i - 1] == axes_[i - 1].size) at[--i] = 0;
      if (i == 0) return;
    }
  }

  // Ranks that agree in every coordinate but the moving ones. Groups in the order of their firsts.
  std::vector<std::vector<int>> groups(const std::vector<std::string>& moving) const {
    std::map<std::uint64_t, std::vector<int>> by_rest;  // the other coordinates, as digits
    for (std::size_t rank = 0; rank < coordinates.size(); ++rank) {
      std::uint64_t rest = 0;
      for (std::size_t i = 0; i < axes_.size(); ++i) {
        const bool moves = std::find(moving.begin(), moving.end(), axes_[i].name) != moving.end();
        rest = rest * kMaxRanks + static_cast<std::uint64_t>(moves ? 0 : coordinates[rank][i]);
      }
      by_rest[rest].push_back(static_cast<int>(rank));
    }
    std::vector<std::vector<int>> result;
    for (const auto& [rest, ranks] : by_rest) result.push_back(ranks);
    return result;
  }

  std::vector<std::vector<int>> coordinates;

 private:
  std::vector<Axis> axes_;
};

// The first difference between the mesh and the model, or nothing.
std::string difference(const std::vector<Axis>& axes) {
  const Mesh mesh(axes);
  const Model model(axes);
  const auto wrong = [&](const std::string& what) { return mesh.to_string() + ": " + what; };
  if (mesh.size() != static_cast<int>(model.coordinates.size())) return wrong("size");
  for (int rank = 0; rank < mesh.size(); ++rank) {
    const auto& at = model.coordinates[static_cast<std::size_t>(rank)];
    if (mesh.rank_at(at) != rank) return wrong("rank_at");
    for (std::size_t i = 0; i < axes.size(); ++i) {
      if (mesh.coordinate(rank, axes[i].name) != at[i]) return wrong("coordinate " + axes[i].name);
    }
  }
  for (const std::string& name : kNames) {
    const auto groups = model.groups({name});
    if (mesh.all_groups(name) != groups) return wrong("all_groups " + name);
    if (groups.size() == model.coordinates.size()) continue;  // all_groups asked for every rank
    for (const std::vector<int>& group : groups) {
      for (const int rank : group) {
        if (mesh.group_ranks(rank, name) != group) return wrong("group_ranks " + name);
      }
    }
  }
  return "";
}

TEST(Mesh, AgreesWithTheModelOnEveryShapeUpTo64Ranks) {
  int meshes = 0;
  for (int size = 1; size <= kMaxRanks; ++size) {
    for (std::size_t num_axes = 0; num_axes <= kNames.size(); ++num_axes) {
      for (const std::vector<int>& sizes : factorisations(size, num_axes)) {
        std::vector<std::string> names = kNames;  // every name meets every place
        std::rotate(names.begin(), names.begin() + meshes % 6, names.end());
        if (meshes % 2 == 1) std::reverse(names.begin(), names.end());
        ASSERT_EQ(difference(make_axes(names, sizes)), "");
        ++meshes;
      }
    }
  }
  EXPECT_EQ(meshes, 13273);  // ways to write n = 1..64 as an ordered product of k = 0..6 factors
}

TEST(Mesh, AgreesWithTheModelInEveryOrderOfAxes) {
  for (const std::vector<int>& sizes :
       {std::vector<int>{2, 3, 1, 2, 1, 5}, {2, 2, 2, 2, 2, 2}, {1, 7, 1, 1, 3, 1}}) {
    std::vector<std::string> names = kNames;
    std::sort(names.begin(), names.end());
    do {
      ASSERT_EQ(difference(make_axes(names, sizes)), "");
    } while (std::next_permutation(names.begin(), names.end()));
  }
}

TEST(Mesh, GroupsOfSeveralAxesAreTheirProduct) {
  for (int size = 1; size <= kMaxRanks; size += 5) {
    for (const std::vector<int>& sizes : factorisations(size, 4)) {
      const std::vector<Axis> axes = make_axes(kNames, sizes);
      const Mesh mesh(axes);
      const Model model(axes);
      for (unsigned subset = 0; subset < 1u << kNames.size(); ++subset) {
        std::vector<std::string> moving;
        for (std::size_t i = 0; i < kNames.size(); ++i) {
          if ((subset >> i & 1u) != 0) moving.insert(moving.begin(), kNames[i]);  // not mesh order
        }
        for (const std::vector<int>& group : model.groups(moving)) {
          ASSERT_EQ(mesh.group_ranks(group.back(), moving), group) << mesh.to_string();
        }
      }
    }
  }
}

TEST(Mesh, ReadsAsTheHeaderSays) {
  const Mesh mesh({{"pp", 2}, {"dp", 3}, {"tp", 2}});
  EXPECT_EQ(mesh.size(), 12);
  EXPECT_EQ(mesh.coordinate(7, "pp"), 1);
  EXPECT_EQ(mesh.coordinate(7, "dp"), 0);
  EXPECT_EQ(mesh.coordinate(7, "tp"), 1);
  EXPECT_EQ(mesh.coordinate(7, "ep"), 0);
  EXPECT_EQ(mesh.axis_size("dp"), 3);
  EXPECT_EQ(mesh.axis_size("ep"), 1);
  EXPECT_THAT(mesh.group_ranks(7, "dp"), ElementsAre(7, 9, 11));
  EXPECT_THAT(mesh.group_ranks(7, {"tp", "dp"}), ElementsAre(6, 7, 8, 9, 10, 11));
  EXPECT_THAT(mesh.group_ranks(7, {"pp", "tp"}), ElementsAre(0, 1, 6, 7));
  EXPECT_THAT(mesh.group_ranks(7, std::vector<std::string>{}), ElementsAre(7));
  EXPECT_THAT(mesh.group_ranks(7, "cp"), ElementsAre(7));
  EXPECT_EQ(mesh.to_string(), "pp 2 x dp 3 x tp 2");
  EXPECT_EQ(Mesh({}).size(), 1);
  EXPECT_EQ(Mesh({}).to_string(), "1 rank");
  EXPECT_THAT(Mesh({}).all_groups("dp"), ElementsAre(ElementsAre(0)));
}

TEST(Mesh, LargestMeshCounts) {
  const Mesh mesh({{"dp", 2147483647}});
  EXPECT_EQ(mesh.size(), 2147483647);
  EXPECT_EQ(mesh.coordinate(2147483646, "dp"), 2147483646);
  EXPECT_EQ(mesh.rank_at({2147483646}), 2147483646);
}

template <class Call>
std::string refusal(Call call) {
  try {
    call();
  } catch (const ConfigError& error) {
    return error.what();
  }
  return "accepted";
}

TEST(Mesh, RefusesWithNumbers) {
  EXPECT_EQ(refusal([] {
              Mesh({{"tpp", 2}});
            }),
            "unknown mesh axis 'tpp', known are dp, fsdp, tp, cp, ep, pp; did you mean 'tp'?");
  EXPECT_EQ(refusal([] {
              Mesh({{"tp", 2}, {"dp", 3}, {"tp", 4}});
            }),
            "mesh tp 2 x dp 3 x tp 4: axis tp is listed 2 times, wanted once");
  EXPECT_EQ(refusal([] {
              Mesh({{"tp", 2}, {"dp", 0}});
            }),
            "mesh tp 2 x dp 0: axis dp has size 0, wanted at least 1");
  EXPECT_EQ(refusal([] {
              Mesh({{"dp", -3}});
            }),
            "mesh dp -3: axis dp has size -3, wanted at least 1");
  EXPECT_EQ(refusal([] {
              Mesh({{"dp", 65536}, {"tp", 32768}});
            }),
            "mesh dp 65536 x tp 32768: more than 2147483647 ranks");
  EXPECT_THAT(refusal([] {
                Mesh({{"dp", 2147483647}, {"tp", 2147483647}, {"pp", 2147483647}});
              }),
              HasSubstr("more than 2147483647 ranks"));

  const Mesh mesh({{"dp", 3}, {"tp", 2}});
  EXPECT_EQ(refusal([&] { mesh.coordinate(6, "dp"); }),
            "rank 6 is outside the mesh dp 3 x tp 2 of 6 ranks");
  EXPECT_THAT(refusal([&] { mesh.group_ranks(-1, "dp"); }), HasSubstr("rank -1 is outside"));
  EXPECT_THAT(refusal([&] { mesh.axis_size("data"); }), HasSubstr("unknown mesh axis 'data'"));
  EXPECT_THAT(refusal([&] { mesh.all_groups(""); }), HasSubstr("unknown mesh axis ''"));
  EXPECT_THAT(refusal([&] { mesh.group_ranks(0, {"dp", "x"}); }), HasSubstr("'x'"));
  EXPECT_EQ(refusal([&] { mesh.rank_at({1}); }),
            "1 coordinates for the mesh dp 3 x tp 2, wanted 2");
  EXPECT_EQ(refusal([&] {
              mesh.rank_at({1, 2});
            }),
            "coordinate 2 on axis tp of size 2 of the mesh dp 3 x tp 2");
}

}  // namespace
}  // namespace trireme
