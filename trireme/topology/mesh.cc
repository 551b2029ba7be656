// Copyright 2026 The Trireme authors
// SPDX-License-Identifier: Apache-2.0

#include "trireme/topology/mesh.h"

#include <fmt/format.h>

#include <algorithm>
#include <cstdint>
#include <limits>
#include <optional>
#include <utility>

#include "trireme/base/config.h"
#include "trireme/base/error.h"

namespace trireme {
namespace {

const std::vector<std::string>& known_axes() {
  static const std::vector<std::string> names = {"dp", "fsdp", "tp", "cp", "ep", "pp"};
  return names;
}

void check_axis_name(std::string_view name) {
  const std::vector<std::string>& names = known_axes();
  if (std::find(names.begin(), names.end(), name) != names.end()) return;
  const std::optional<std::string> near = nearest_word(name, names);
  throw_error<ConfigError>("unknown mesh axis '{}', known are {}{}", name, fmt::join(names, ", "),
                           near ? fmt::format("; did you mean '{}'?", *near) : "");
}

std::string describe(const std::vector<Axis>& axes) {
  if (axes.empty()) return "1 rank";
  std::string text;
  for (const Axis& axis : axes) {
    text += fmt::format("{}{} {}", text.empty() ? "" : " x ", axis.name, axis.size);
  }
  return text;
}

}  // namespace

Mesh::Mesh(std::vector<Axis> axes) : axes_(std::move(axes)), strides_(axes_.size()) {
  constexpr std::int64_t kMaxRanks = std::numeric_limits<int>::max();
  std::int64_t size = 1;
  for (std::size_t i = axes_.size(); i-- > 0;) {
    const Axis& axis = axes_[i];
    check_axis_name(axis.name);
    if (axis.size < 1) {
      throw_error<ConfigError>("mesh {}: axis {} has size {}, wanted at least 1", describe(axes_),
                               axis.name, axis.size);
    }
    const auto same_name = [&](const Axis& other) { return other.name == axis.name; };
    if (const auto times = std::count_if(axes_.begin(), axes_.end(), same_name); times > 1) {
      throw_error<ConfigError>("mesh {}: axis {} is listed {} times, wanted once", describe(axes_),
                               axis.name, times);
    }
    strides_[i] = static_cast<int>(size);
    size *= axis.size;
    if (size > kMaxRanks) {
      throw_error<ConfigError>("mesh {}: more than {} ranks", describe(axes_), kMaxRanks);
    }
  }
  size_ = static_cast<int>(size);
}

std::size_t Mesh::axis_index(std::string_view axis) const {
  const auto found = std::find_if(axes_.begin(), axes_.end(),
                                  [&](const Axis& other) { return other.name == axis; });
  if (found == axes_.end()) check_axis_name(axis);
  return static_cast<std::size_t>(found - axes_.begin());
}

void Mesh::check_rank(int rank) const {
  if (rank < 0 || rank >= size_) {
    throw_error<ConfigError>("rank {} is outside the mesh {} of {} ranks", rank, to_string(),
                             size_);
  }
}

int Mesh::axis_size(std::string_view axis) const {
  const std::size_t index = axis_index(axis);
  return index < axes_.size() ? axes_[index].size : 1;
}

int Mesh::coordinate(int rank, std::string_view axis) const {
  check_rank(rank);
  const std::size_t index = axis_index(axis);
  return index < axes_.size() ? rank / strides_[index] % axes_[index].size : 0;
}

int Mesh::rank_at(const std::vector<int>& coordinates) const {
  if (coordinates.size() != axes_.size()) {
    throw_error<ConfigError>("{} coordinates for the mesh {}, wanted {}", coordinates.size(),
                             to_string(), axes_.size());
  }
  int rank = 0;
  for (std::size_t i = 0; i < axes_.size(); ++i) {
    if (coordinates[i] < 0 || coordinates[i] >= axes_[i].size) {
      throw_error<ConfigError>("coordinate {} on axis {} of size {} of the mesh {}", coordinates[i],
                               axes_[i].name, axes_[i].size, to_string());
    }
    rank += coordinates[i] * strides_[i];
  }
  return rank;
}

// Strides fall from axis to axis, so that growing the list by one axis after the other, the first
// slowest, keeps it ascending.
std::vector<int> Mesh::ranks_along(int rank, const std::vector<bool>& moving) const {
  int first = rank;
  for (std::size_t i = 0; i < axes_.size(); ++i) {
    if (moving[i]) first -= rank / strides_[i] % axes_[i].size * strides_[i];
  }
  std::vector<int> ranks = {first};
  for (std::size_t i = 0; i < axes_.size(); ++i) {
    if (!moving[i]) continue;
    std::vector<int> longer;
    longer.reserve(ranks.size() * static_cast<std::size_t>(axes_[i].size));
    for (const int start : ranks) {
      for (int step = 0; step < axes_[i].size; ++step) longer.push_back(start + step * strides_[i]);
    }
    ranks.swap(longer);
  }
  return ranks;
}

std::vector<int> Mesh::group_ranks(int rank, std::string_view axis) const {
  check_rank(rank);
  std::vector<bool> moving(axes_.size() + 1, false);  // the last stands for what is not listed
  moving[axis_index(axis)] = true;
  return ranks_along(rank, moving);
}

std::vector<int> Mesh::group_ranks(int rank, const std::vector<std::string>& axes) const {
  check_rank(rank);
  std::vector<bool> moving(axes_.size() + 1, false);
  for (const std::string& axis : axes) moving[axis_index(axis)] = true;
  return ranks_along(rank, moving);
}

std::vector<int> Mesh::group_ranks(int rank, std::initializer_list<std::string_view> axes) const {
  return group_ranks(rank, std::vector<std::string>(axes.begin(), axes.end()));
}

std::vector<std::vector<int>> Mesh::all_groups(std::string_view axis) const {
  const std::size_t index = axis_index(axis);
  std::vector<std::vector<int>> groups;
  for (int rank = 0; rank < size_; ++rank) {
    const bool first = index == axes_.size() || rank / strides_[index] % axes_[index].size == 0;
    if (first) groups.push_back(group_ranks(rank, axis));
  }
  return groups;
}

std::string Mesh::to_string() const { return describe(axes_); }

}  // namespace trireme
