// Copyright 2026 The Trireme authors
// SPDX-License-Identifier: Apache-2.0

// Model: any torch::nn module with compile, fit, evaluate and predict, spread over workers by a
// strategy (strategy.h). Keras's words.
//
//   const auto scope = strategy.scope();
//   Model model(scope, torch::nn::Sequential(torch::nn::Linear(20, 10), torch::nn::ReLU(),
//                                            torch::nn::Linear(10, 1), torch::nn::Sigmoid()));
//   model.compile(Adam({.learning_rate = 0.01}), BinaryCrossEntropy(), {BinaryAccuracy()});
//   const History history = model.fit({x, y}, {.epochs = 10, .batch_size = 32});
//   const Logs logs = model.evaluate({x_test, y_test});  // logs.at("loss")
//   const at::Tensor predictions = model.predict(x_test);
//
// All workers call the same functions with the same arguments and get the same results, bit for
// bit. A batch is cut into the strategy's micro-batches: rows that follow one another, as equally
// as can be, the first ones longer. Each is computed by one worker, its loss and metrics summed in
// the order of their numbers; so losses do not depend on the number of workers, nor on who has
// which samples. Exceptions: running means of batches (BatchNorm) are those of rank 0; with
// parameter servers that do not sync, results are each worker's own (strategy.h).
//
// What a module draws from LibTorch's generator in training (dropout) depends on the seed and the
// number of the micro-batch alone.
#pragma once

#include <ATen/core/Tensor.h>
#include <torch/nn/pimpl.h>

#include <cstdint>
#include <functional>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <vector>

#include "trireme/optim/gradient_guard.h"
#include "trireme/train/callbacks.h"
#include "trireme/train/dataset.h"
#include "trireme/train/objectives.h"
#include "trireme/train/optimizer_recipe.h"
#include "trireme/train/spread_model.h"
#include "trireme/train/strategy.h"

namespace trireme {

struct Positions;

using GuardOptions = optim::GuardConfig;

struct CompileOptions {
  // Of a moving average of the weights (optim/weight_average.h), f32 models; 0: none. Training goes
  // on from the weights, all else is by the average: evaluate(), predict(), the validation and the
  // callbacks of fit(), weights(), save_weights(), what compile() begins with when it is called
  // again, and module() after fit(). Buffers (running means of batches) are not averaged.
  double average_decay = 0;
  // Steps whose loss or gradients are not finite, or spike, are passed over
  // (optim/gradient_guard.h) on all ranks alike: weights, average, buffers and the optimizer stay
  // as they are. Costs a pass over the gradients and a few bytes between ranks a step. Empty: every
  // step is applied.
  std::optional<GuardOptions> guard = std::nullopt;
};

struct FitOptions {
  std::int64_t epochs = 1;  // number of the last one
  std::int64_t batch_size = 32;
  std::optional<Dataset> validation = std::nullopt;  // evaluated after each epoch
  std::vector<AnyCallback> callbacks = {};
  bool shuffle = true;             // another order in each epoch, the same on any workers
  std::uint64_t seed = 0;          // of orders and dropout
  std::int64_t initial_epoch = 0;  // epochs that have been: the first one's number less one
  bool progress = true;            // one line on stdout for each epoch, by rank 0
};

// What fit() tells, the same on every rank.
struct History {
  std::vector<Logs> epochs;
  // Steps that CompileOptions::guard passed over, of all these epochs.
  std::int64_t non_finite = 0;
  std::int64_t spikes = 0;
  // One value for each epoch. Throws ConfigError when there is no such name.
  std::vector<double> values(const std::string& name) const;
};

// Not thread-safe. Movable.
class Model {
 public:
  using Forward = std::function<at::Tensor(const at::Tensor& inputs)>;

  // module: Sequential, or any module whose forward() makes a tensor of a tensor. On the CPU. The
  // scope's strategy outlives the model. Moves nothing.
  template <class Contained>
  Model(const StrategyScope& scope, const torch::nn::ModuleHolder<Contained>& module)
      : Model(scope, module.ptr(), [contained = module.ptr()](const at::Tensor& inputs) {
          return contained->forward(inputs);
        }) {}
  // forward: predictions [n, ...] for inputs [n, ...], by the module's parameters.
  Model(const StrategyScope& scope, std::shared_ptr<torch::nn::Module> module, Forward forward);
  ~Model();
  Model(Model&&) noexcept;
  Model& operator=(Model&&) noexcept;

  // Spreads the module over the workers with a new optimizer, as Strategy::spread(), whose errors
  // it throws, and ConfigError for options out of range. Before everything below; the module must
  // not be cast or moved afterwards. Collective, blocking.
  void compile(const OptimizerRecipe& optimizer, Loss loss, std::vector<Metric> metrics = {},
               const CompileOptions& options = {});

  // Trains. The last batch of an epoch may be smaller; its samples weigh as much as others. Logs:
  // "loss" and the metrics by name, means over the epoch's samples, while the weights changed;
  // those of the validation begin with "val_". The samples of steps that are passed over do not
  // count; NaN when no others are. Collective, blocking. Throws ConfigError for options out of
  // range or an empty dataset; ShapeError; CommError; what callbacks throw; Error, on all ranks
  // alike, after more bad steps in a row than the guard bears.
  History fit(const Dataset& data, const FitOptions& options = {});
  // Means over all samples, each rank computing a part. Throws as fit().
  Logs evaluate(const Dataset& data, std::int64_t batch_size = 32);
  // Predictions for all inputs [n, ...], in their order, on every rank. Throws as fit().
  at::Tensor predict(const at::Tensor& inputs, std::int64_t batch_size = 32);

  // fit() returns after this epoch's callbacks: on all ranks when one of them says so.
  void stop_training() { stop_ = true; }

  // Parameters and buffers by name; on rank 0, the others may get nothing. Collective.
  SpreadModel::NamedTensors weights();
  // Weights become rank 0's values. Collective. Throws CheckpointError on rank 0 when names or
  // shapes are another model's.
  void set_weights(const SpreadModel::NamedTensors& values);
  // Rank 0 writes <folder>/step-<step>, a checkpoint (checkpoint/checkpoint.h). Collective. Throws
  // CheckpointError on rank 0.
  void save_weights(const std::string& folder, std::int64_t step = 0);
  // Rank 0 reads; path: a checkpoint, or a folder of them (the newest). Collective. Throws
  // CheckpointError on rank 0.
  void load_weights(const std::string& path);

  torch::nn::Module& module() { return *module_; }
  Strategy& strategy() { return *strategy_; }

 private:
  struct Pass;
  std::size_t columns() const { return 2 + metrics_.size(); }  // of a pass
  Logs run(const Pass& pass);
  bool train(const Pass& pass, std::int64_t batch, std::span<double> rows);
  optim::StepVerdict judge(std::span<const double> counts_and_losses);
  void compute(const Pass& pass, std::int64_t batch, std::span<double> rows);
  void compute(const Pass& pass, std::int64_t batch, std::int64_t micro_batch,
               std::span<double> sums);
  void complete(const Pass& pass, std::span<double> table);
  void predict_rows(const at::Tensor& inputs, const Positions& rows, at::Tensor& predictions);
  bool speaks();
  SpreadModel& spread();
  SpreadModel& averaged();

  Strategy* strategy_;
  std::shared_ptr<torch::nn::Module> module_;
  Forward forward_;
  Loss loss_;
  std::vector<Metric> metrics_;
  std::unique_ptr<SpreadModel> spread_;
  std::optional<optim::GradientGuard> guard_;
  std::int64_t steps_ = 0;  // that the guard has judged
  bool stop_ = false;
};

}  // namespace trireme
