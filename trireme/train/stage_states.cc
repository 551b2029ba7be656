// Copyright 2026 The Trireme authors
// SPDX-License-Identifier: Apache-2.0

#include "trireme/train/stage_states.h"

#include <ATen/ops/empty.h>
#include <ATen/ops/zeros.h>

#include <algorithm>
#include <numeric>
#include <span>
#include <sstream>
#include <string>

#include "trireme/comm/group.h"
#include "trireme/parallel/tensor_buffer.h"

namespace trireme {
namespace {

constexpr int kStateTag = 2;

// Each rank's text, on all. Collective.
std::vector<std::string> exchange_text(Group& group, const std::string& own) {
  std::vector<std::int64_t> sizes(static_cast<std::size_t>(group.size()));
  auto size = static_cast<std::int64_t>(own.size());
  group.all_gather(buffer_of(std::span(&size, 1)), buffer_of(std::span(sizes)));
  std::vector<std::uint8_t> all(
      static_cast<std::size_t>(std::accumulate(sizes.begin(), sizes.end(), std::int64_t{0})));
  std::vector<std::uint8_t> bytes(own.begin(), own.end());
  group.all_gather(buffer_of(std::span(bytes)), buffer_of(std::span(all)), sizes);
  std::vector<std::string> texts;
  auto next = all.begin();
  for (const std::int64_t count : sizes) {
    texts.emplace_back(next, next + count);
    next += count;
  }
  return texts;
}

// A state of one rank, without its values: a line "elementwise name parameter ..." or "parameter
// name parameter dim ...".
struct Description {
  bool elementwise = true;
  std::string name;
  std::vector<std::string> parameters;
  std::vector<std::int64_t> sizes;
};

std::string describe(const std::vector<std::vector<optim::OptimizerState>>& states) {
  std::ostringstream out;
  for (const auto& of_part : states) {
    for (const optim::OptimizerState& state : of_part) {
      out << (state.elementwise ? "elementwise " : "parameter ") << state.name;
      for (const std::string& parameter : state.parameters) out << " " << parameter;
      if (!state.elementwise) {
        for (const std::int64_t size : state.values.sizes()) out << " " << size;
      }
      out << "\n";
    }
  }
  return out.str();
}

std::vector<Description> read(const std::string& text) {
  std::vector<Description> found;
  std::istringstream lines(text);
  for (std::string line; std::getline(lines, line);) {
    std::istringstream words(line);
    std::string kind, word;
    Description one;
    words >> kind >> one.name;
    one.elementwise = kind == "elementwise";
    while (words >> word) {
      if (one.elementwise || one.parameters.empty()) {
        one.parameters.push_back(word);
      } else {
        one.sizes.push_back(std::stoll(word));
      }
    }
    found.push_back(std::move(one));
  }
  return found;
}

// Of all ranks; parameters of states of one name together, in the order of the ranks.
std::vector<optim::OptimizerState> elementwise_states(
    const std::vector<std::vector<Description>>& of_rank) {
  std::vector<optim::OptimizerState> joined;
  for (const auto& descriptions : of_rank) {
    for (const Description& one : descriptions) {
      if (!one.elementwise) continue;
      auto found = std::ranges::find(joined, one.name, &optim::OptimizerState::name);
      if (found == joined.end())
        found = joined.insert(found, optim::OptimizerState{.name = one.name, .values = {}});
      found->parameters.insert(found->parameters.end(), one.parameters.begin(),
                               one.parameters.end());
    }
  }
  return joined;
}

// Of one name, of each part; zeros where it has none.
std::vector<at::Tensor> values_named(const std::string& name,
                                     const std::vector<std::vector<optim::OptimizerState>>& states,
                                     const std::vector<const ModuleLayout*>& layouts) {
  std::vector<at::Tensor> values;
  for (std::size_t part = 0; part < states.size(); ++part) {
    const auto found = std::ranges::find_if(
        states[part], [&](const auto& state) { return state.elementwise && state.name == name; });
    values.push_back(found != states[part].end()
                         ? found->values
                         : at::zeros({layouts[part]->size}, at::TensorOptions(at::kFloat)));
  }
  return values;
}

}  // namespace

std::vector<optim::OptimizerState> join_stage_states(
    const std::vector<std::vector<optim::OptimizerState>>& states,
    const std::vector<const ModuleLayout*>& layouts, const StageLayouts& whole, Group& pipeline) {
  std::vector<std::vector<Description>> of_rank;
  for (const std::string& text : exchange_text(pipeline, describe(states))) {
    of_rank.push_back(read(text));
  }
  std::vector<optim::OptimizerState> joined = elementwise_states(of_rank);
  for (optim::OptimizerState& state : joined) {
    state.values = whole.gather(values_named(state.name, states, layouts));
  }
  for (const auto& of_part : states) {
    for (const optim::OptimizerState& state : of_part) {
      if (state.elementwise) continue;
      if (pipeline.rank() == 0) {
        joined.push_back(state);
      } else {
        pipeline.send(buffer_of_tensor(state.values.contiguous()), 0, kStateTag);
      }
    }
  }
  if (pipeline.rank() != 0) return joined;
  for (int rank = 1; rank < pipeline.size(); ++rank) {
    for (const Description& one : of_rank[static_cast<std::size_t>(rank)]) {
      if (one.elementwise) continue;
      optim::OptimizerState state{.name = one.name,
                                  .values = at::empty(one.sizes, at::TensorOptions(at::kFloat)),
                                  .elementwise = false,
                                  .parameters = one.parameters};
      pipeline.recv(buffer_of_tensor(state.values), rank, kStateTag);
      joined.push_back(std::move(state));
    }
  }
  return joined;
}

}  // namespace trireme
