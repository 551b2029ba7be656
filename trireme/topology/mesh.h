// Copyright 2026 The Trireme authors
// SPDX-License-Identifier: Apache-2.0

// Mesh: the rank grid. Named axes of given sizes, laid over ranks 0 .. size-1.
//
// Ranks are numbered in row-major order of the axes as given: the last axis varies fastest, so put
// the axis with the most traffic last (its ranks are neighbours).
//
//   const Mesh mesh({{"pp", 2}, {"dp", 3}, {"tp", 2}});   // 12 ranks
//   mesh.coordinate(7, "dp");                             // 0: rank 7 = pp 1, dp 0, tp 1
//   mesh.group_ranks(7, "dp");                            // {7, 9, 11}
//
// Pure: opens nothing, knows no process. comm/ turns a list of ranks into a Group.
#pragma once

#include <cstddef>
#include <initializer_list>
#include <string>
#include <string_view>
#include <vector>

namespace trireme {

// One axis of the mesh. Names are those of docs/design.md: dp, fsdp, tp, cp, ep, pp.
struct Axis {
  std::string name;
  int size = 1;
};

// Constant after construction; any thread may call it.
class Mesh {
 public:
  // No axes make a world of one. Throws ConfigError: an unknown or repeated name, a size below 1, a
  // product above 2^31 - 1.
  explicit Mesh(std::vector<Axis> axes);

  int size() const { return size_; }
  const std::vector<Axis>& axes() const { return axes_; }

  // All below throw ConfigError for an axis name that no mesh has, and for a rank or coordinate
  // that lies outside this one.

  // Size of the axis; 1 for a known name that this mesh does not list.
  int axis_size(std::string_view axis) const;
  // Position of the rank on the axis, 0 <= . < axis_size(axis).
  int coordinate(int rank, std::string_view axis) const;
  // The rank with the given coordinates, one for each axis in the order of axes().
  int rank_at(const std::vector<int>& coordinates) const;

  // The ranks that differ from the given one along the axes only, ascending in mesh order: the
  // members of the group that it belongs to. Several axes give the group of their product ("dp" and
  // "fsdp").
  std::vector<int> group_ranks(int rank, std::string_view axis) const;
  std::vector<int> group_ranks(int rank, const std::vector<std::string>& axes) const;
  std::vector<int> group_ranks(int rank, std::initializer_list<std::string_view> axes) const;
  // All groups of the axis, by their first rank; together they hold every rank once.
  std::vector<std::vector<int>> all_groups(std::string_view axis) const;

  // "pp 2 x dp 3 x tp 2"; "1 rank" without axes.
  std::string to_string() const;

 private:
  // Position in axes_; axes_.size() for a known name that this mesh does not list.
  std::size_t axis_index(std::string_view axis) const;
  void check_rank(int rank) const;
  std::vector<int> ranks_along(int rank, const std::vector<bool>& moving) const;

  // Constant after construction.
  std::vector<Axis> axes_;
  std::vector<int> strides_;  // ranks between neighbours on each axis
  int size_ = 1;
};

}  // namespace trireme
