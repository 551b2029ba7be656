// Copyright 2026 The Trireme authors
// SPDX-License-Identifier: Apache-2.0

// The children of a torch::nn::Sequential as units of a ShardedModel, which are computed by its
// run().
//
//   const auto units = sequential_units(*net);
//   ShardedModel sharded(*net, group, {.stage = 3, .units = units});
//   const SequentialRunner runner(*net, units, sharded);
//   sharded.forward([&] { return net->forward(x); });    // gathers child by child
#pragma once

#include <memory>
#include <vector>

namespace torch::nn {
class Module;
}

namespace trireme {

class ShardedModel;

// Children with parameters that are trained and that no other child has, each once; none of a
// module that is no Sequential.
std::vector<const torch::nn::Module*> sequential_units(const torch::nn::Module& module);

// While it lives, the Sequential's forward() computes the units by sharded.run(), and at<>() and
// ptr() of a unit's place give what does so; the tree of modules and its names stay as they are. A
// unit takes one tensor; one that makes anything but a tensor, as LSTM does, throws ConfigError in
// forward(). All arguments outlive it. Not thread-safe.
class SequentialRunner {
 public:
  SequentialRunner(torch::nn::Module& module, const std::vector<const torch::nn::Module*>& units,
                   ShardedModel& sharded);
  ~SequentialRunner();
  SequentialRunner(const SequentialRunner&) = delete;
  SequentialRunner& operator=(const SequentialRunner&) = delete;

 private:
  struct Places;
  std::unique_ptr<Places> places_;
};

}  // namespace trireme
