// Copyright 2026 The Trireme authors
// SPDX-License-Identifier: Apache-2.0

// The command line that the peers share, and their main loop: the cases of `trireme bench comm`,
// verified, timed and printed by the same code, as one JSON object per line.
#pragma once

#include <CLI/App.hpp>
#include <string>
#include <vector>

#include "trireme/comm/bench/comm_bench.h"

namespace trireme::peers {

// One way in which a peer can do it.
struct PeerVariant {
  std::string name;  // printed as engine
  BenchSubject subject;
  std::vector<std::string> operations;  // that this variant has
};

struct PeerArguments {
  std::vector<std::string> operations = {"all_reduce", "reduce_scatter", "all_gather",
                                         "all_to_all"};
  std::vector<std::string> bytes = {"4KiB", "64MiB"};
  BenchTiming timing;
};

void add_peer_options(CLI::App& app, PeerArguments& arguments);

// Collective. Rank 0 prints; f32 from the heap.
void run_peer(const PeerVariant& variant, const PeerArguments& arguments);

}  // namespace trireme::peers
