// Copyright 2026 The Trireme authors
// SPDX-License-Identifier: Apache-2.0

// The ranks of a group by host, and the smaller groups that a hierarchical engine is made of.
//
// Hosts are numbered by their lowest rank; a rank's local index is its position among the ranks of
// its host. A *rail* is one rank of every host, those with the same local index: rail i connects
// the i-th ranks of all hosts. There are as many rails as the smallest host has ranks, so that
// every host can drive every rail.
#pragma once

#include <vector>

#include "trireme/comm/world_state.h"

namespace trireme {

class HostMap {
 public:
  explicit HostMap(const GroupScope& scope);

  int num_hosts() const { return static_cast<int>(hosts_.size()); }
  int num_rails() const { return num_rails_; }
  // Ranks of the group on a host, ascending.
  const std::vector<int>& ranks_on(int host) const {
    return hosts_[static_cast<std::size_t>(host)];
  }
  int num_ranks_on(int host) const { return static_cast<int>(ranks_on(host).size()); }
  // Of the largest host.
  int most_ranks() const { return most_ranks_; }
  int host_of(int rank) const { return host_of_[static_cast<std::size_t>(rank)]; }
  int local_index_of(int rank) const { return local_index_[static_cast<std::size_t>(rank)]; }

  int own_host() const { return own_host_; }
  int own_local_index() const { return own_local_index_; }
  bool on_rail() const { return own_local_index_ < num_rails_; }

  // The ranks of this host as a group, in ascending order; the ranks of this rank's rail, by host.
  GroupScope local_scope() const;
  GroupScope rail_scope() const;

 private:
  GroupScope part(const char* kind, int number, const std::vector<int>& ranks, int own) const;

  // Constant after construction.
  const GroupScope& scope_;
  std::vector<std::vector<int>> hosts_;
  std::vector<int> host_of_;
  std::vector<int> local_index_;
  int num_rails_ = 0;
  int most_ranks_ = 0;
  int own_host_ = 0;
  int own_local_index_ = 0;
};

}  // namespace trireme
