// Copyright 2026 The Trireme authors
// SPDX-License-Identifier: Apache-2.0

#include "trireme/comm/hierarchy/host_map.h"

#include <fmt/format.h>
#include <xxhash.h>

#include <algorithm>
#include <map>
#include <string>

namespace trireme {

HostMap::HostMap(const GroupScope& scope) : scope_(scope) {
  std::map<std::string, int> numbers;
  for (int rank = 0; rank < scope.size(); ++rank) {
    const auto [place, is_new] =
        numbers.emplace(scope.member(rank).host_id, static_cast<int>(hosts_.size()));
    if (is_new) hosts_.emplace_back();
    std::vector<int>& ranks = hosts_[static_cast<std::size_t>(place->second)];
    host_of_.push_back(place->second);
    local_index_.push_back(static_cast<int>(ranks.size()));
    ranks.push_back(rank);
  }
  const auto [smallest, largest] =
      std::minmax_element(hosts_.begin(), hosts_.end(),
                          [](const auto& a, const auto& b) { return a.size() < b.size(); });
  num_rails_ = static_cast<int>(smallest->size());
  most_ranks_ = static_cast<int>(largest->size());
  own_host_ = host_of(scope.rank);
  own_local_index_ = local_index_of(scope.rank);
}

GroupScope HostMap::local_scope() const {
  return part("host", own_host_, ranks_on(own_host_), own_local_index_);
}

GroupScope HostMap::rail_scope() const {
  std::vector<int> ranks;
  for (const std::vector<int>& host : hosts_) {
    ranks.push_back(host[static_cast<std::size_t>(own_local_index_)]);
  }
  return part("rail", own_local_index_, ranks, own_host_);
}

// It keeps the group's name: errors speak of the group that the user knows.
GroupScope HostMap::part(const char* kind, int number, const std::vector<int>& ranks,
                         int own) const {
  GroupScope scope;
  scope.world = scope_.world;
  scope.name = scope_.name;
  scope.rank = own;
  std::string key = fmt::format("{:016x}/{}/{}/", scope_.id, kind, number);
  for (const int rank : ranks) {
    scope.world_ranks.push_back(scope_.world_ranks[static_cast<std::size_t>(rank)]);
    key += fmt::format("{},", scope.world_ranks.back());
  }
  scope.id = XXH3_64bits(key.data(), key.size());
  return scope;
}

}  // namespace trireme
