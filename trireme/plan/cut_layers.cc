// Copyright 2026 The Trireme authors
// SPDX-License-Identifier: Apache-2.0

#include "trireme/plan/cut_layers.h"

#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <cstddef>
#include <limits>
#include <optional>

#include "trireme/base/error.h"
#include "trireme/plan/internal/index.h"
#include "trireme/plan/internal/layer_cut.h"

namespace trireme::plan {
namespace {

std::string describe(const std::vector<LayerCost>& layers, const CutRequest& request) {
  return fmt::format("{} layers in {} stages", layers.size(), request.rank_of_stage.size());
}

void check_layers(const std::vector<LayerCost>& layers, const CutRequest& request) {
  if (request.rank_of_stage.empty() || layers.size() < request.rank_of_stage.size()) {
    throw_error<ConfigError>("{}: a stage has at least one layer, and there is at least one stage",
                             describe(layers, request));
  }
  for (std::size_t layer = 0; layer < layers.size(); ++layer) {
    const LayerCost& cost = layers[layer];
    if (cost.time_us >= 0 && std::isfinite(cost.time_us) && cost.weight_bytes >= 0 &&
        cost.activation_bytes >= 0) {
      continue;
    }
    throw_error<ConfigError>("{}: layer {} ({}) costs {} us, {} and {} bytes, wanted 0 or more",
                             describe(layers, request), layer, cost.name, cost.time_us,
                             cost.weight_bytes, cost.activation_bytes);
  }
}

void check_placement(const std::vector<LayerCost>& layers, const CutRequest& request) {
  const std::vector<int>& placement = request.rank_of_stage;
  const int ranks = 1 + *std::max_element(placement.begin(), placement.end());
  for (int rank = std::min(0, *std::min_element(placement.begin(), placement.end())); rank < ranks;
       ++rank) {
    const bool known = std::find(placement.begin(), placement.end(), rank) != placement.end();
    if (rank >= 0 && known) continue;
    throw_error<ConfigError>("{}: the ranks of stages are {}, wanted 0 to {}, each at least once",
                             describe(layers, request), fmt::join(placement, ", "),
                             std::max(0, ranks - 1));
  }
  if (!request.stored.empty() && request.stored.size() != placement.size()) {
    throw_error<ConfigError>("{}: stored micro-batches of {} stages", describe(layers, request),
                             request.stored.size());
  }
  for (const int stored : request.stored) {
    if (stored >= 0) continue;
    throw_error<ConfigError>("{}: {} stored micro-batches, wanted 0 or more",
                             describe(layers, request), stored);
  }
  if (!request.memory_bytes.empty() && request.memory_bytes.size() != index(ranks)) {
    throw_error<ConfigError>("{}: memory of {} ranks, but the stages are on {}",
                             describe(layers, request), request.memory_bytes.size(), ranks);
  }
}

// With one stage on each rank, the memory of the smallest, and the most stored micro-batches: how
// many ranks would do. Or which layer is too large for any.
std::string advice(const std::vector<LayerCost>& layers, const CutRequest& request) {
  const std::int64_t memory =
      *std::min_element(request.memory_bytes.begin(), request.memory_bytes.end());
  const int stored =
      request.stored.empty() ? 0 : *std::max_element(request.stored.begin(), request.stored.end());
  int ranks = 1;
  std::int64_t taken = 0;
  for (const LayerCost& layer : layers) {
    const std::int64_t bytes = layer.weight_bytes + stored * layer.activation_bytes;
    if (bytes > memory) {
      return fmt::format("layer {} alone takes {} bytes with {} stored micro-batch{}", layer.name,
                         bytes, stored, stored == 1 ? "" : "es");
    }
    if (taken + bytes > memory) {
      ++ranks;
      taken = 0;
    }
    taken += bytes;
  }
  return fmt::format("{} ranks with one stage and at most {} stored micro-batch{} each would do",
                     ranks, stored, stored == 1 ? "" : "es");
}

[[noreturn]] void refuse(const std::vector<LayerCost>& layers, const CutRequest& request,
                         const CutCosts& costs, const Cut& nearest) {
  std::string ranks;
  const std::vector<std::int64_t> taken = costs.rank_bytes(nearest);
  for (int rank = 0; rank < costs.ranks(); ++rank) {
    ranks += fmt::format("{}rank {} {} of {}", rank == 0 ? "" : ", ", rank, taken[index(rank)],
                         costs.memory_bytes(rank));
  }
  throw_error<ConfigError>(
      "{}: no cut found that fits into the memory; the nearest takes, in bytes: {}; {}",
      describe(layers, request), ranks, advice(layers, request));
}

// As many layers in each stage, or one more.
Cut equal_numbers(const CutCosts& costs) {
  Cut cut;
  for (int stage = 0; stage < costs.stages(); ++stage) {
    const std::int64_t layers = costs.layers();
    cut.push_back(static_cast<int>(stage * layers / costs.stages()));
  }
  return cut;
}

}  // namespace

std::vector<int> cut_layers(const std::vector<LayerCost>& layers, const CutRequest& request) {
  check_layers(layers, request);
  check_placement(layers, request);
  const CutCosts costs(layers, request);
  Cut climbed = climb(costs, equal_numbers(costs));
  const CutScore reached = costs.score(climbed);
  const bool fits = reached.excess_bytes == 0;
  const std::optional<Cut> found =
      search(costs, fits ? reached.rank_us : std::numeric_limits<double>::infinity());
  if (found && (!fits || costs.score(*found) < reached)) return climb(costs, *found);
  if (!fits) refuse(layers, request, costs, climbed);
  return climbed;
}

std::vector<int> most_stored(const Schedule& schedule) {
  std::vector<int> most(schedule.rank_of_stage.size(), 0);
  std::vector<int> now = most;
  for (const std::vector<Instruction>& list : schedule.of_rank) {
    for (const Instruction& instruction : list) {
      if (!is_compute(instruction.action)) continue;
      const std::size_t stage = index(instruction.stage);
      if (instruction.action == Action::kForward) {
        most[stage] = std::max(most[stage], ++now[stage]);
      } else if (instruction.action != Action::kBackwardInput) {
        --now[stage];
      }
    }
  }
  return most;
}

}  // namespace trireme::plan
