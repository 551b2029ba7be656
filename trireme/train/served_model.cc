// Copyright 2026 The Trireme authors
// SPDX-License-Identifier: Apache-2.0

#include "trireme/train/served_model.h"

#include <fmt/format.h>
#include <torch/nn/module.h>

#include <algorithm>
#include <array>
#include <cstdint>
#include <cstring>
#include <optional>
#include <span>
#include <utility>
#include <vector>

#include "trireme/base/error.h"
#include "trireme/optim/weight_average.h"
#include "trireme/train/named_weights.h"

namespace trireme {
namespace {

// Of the numbers that one exchange sums: they travel in the header of a call, with more.
constexpr std::size_t kExchanged = std::size_t{1} << 16;

// The sums of a job's workers.
class ServedSums final : public WorkerSums {
 public:
  explicit ServedSums(ServedParameters& parameters)
      : parameters_(parameters), alone_(!parameters.worker().layout().consistency.sums) {}

  bool alone() const override { return alone_; }

  // All parts are exchanged, whatever became of one: the others wait for this worker.
  bool sum(std::span<double> values, std::size_t row) override {
    if (alone_) return true;
    std::vector<double> sums;
    bool known = true;
    const std::size_t part = std::max(kExchanged / row, std::size_t{1}) * row;
    for (std::size_t begin = 0; begin < values.size(); begin += part) {
      const auto own = values.subspan(begin, std::min(part, values.size() - begin));
      std::vector<double> extras(own.begin(), own.end());
      known = parameters_.exchange(extras) && known;
      sums.insert(sums.end(), extras.begin(), extras.end());
    }
    if (known) std::copy(sums.begin(), sums.end(), values.begin());
    return known;
  }

  // Four bytes are a number that a double holds.
  bool sum(std::span<std::byte> bytes) override {
    if (alone_) return true;
    std::vector<std::uint32_t> words((bytes.size() + 3) / 4);
    std::memcpy(words.data(), bytes.data(), bytes.size());
    std::vector<double> values(words.begin(), words.end());
    if (!sum(values, 1)) return false;
    std::transform(values.begin(), values.end(), words.begin(),
                   [](double value) { return static_cast<std::uint32_t>(value); });
    std::memcpy(bytes.data(), words.data(), bytes.size());
    return true;
  }

 private:
  ServedParameters& parameters_;
  const bool alone_;
};

ServedOptions completed(ServedOptions options, const OptimizerRecipe& recipe,
                        double average_decay) {
  if (!recipe.config) {
    throw_error<ConfigError>(
        "an optimizer of torch::optim does not run on parameter servers: take Sgd, Adam, AdamW or "
        "ShardedOptimizer, or MirroredStrategy");
  }
  options.optimizer = *recipe.config;
  options.all_decay = recipe.all_decay;
  options.job.settings +=
      fmt::format(", learning_rate {}, average_decay {}", recipe.learning_rate, average_decay);
  return options;
}

class ServedSpread final : public SpreadModel {
 public:
  ServedSpread(torch::nn::Module& module, const OptimizerRecipe& recipe,
               const ServedOptions& options, double average_decay)
      : module_(module),
        num_micro_batches_(options.micro_batches),
        learning_rate_(recipe.learning_rate),
        parameters_(std::make_shared<ServedParameters>(module, options)),
        sums_(*parameters_),
        average_decay_(average_decay) {
    ps::Worker& worker = parameters_->worker();
    if (worker.came_later()) {
      throw_error<Error>(
          "worker {} was started while the job goes on, and a Model cannot join in the midst of "
          "fit(): the others go on without it; leave --restarts at 0",
          worker.rank());
    }
    if (is_root()) worker.wait(worker.init());
    parameters_->pull();
    share(rest());
    start_average();
  }

  const std::shared_ptr<ServedParameters>& parameters() const { return parameters_; }

  std::int64_t num_micro_batches() const override { return num_micro_batches_; }
  const std::vector<std::int64_t>& micro_batches() const override {
    return parameters_->micro_batches();
  }
  at::Tensor forward(const std::function<at::Tensor()>& f) override {
    return parameters_->forward(f);
  }
  void begin_step() override {}  // finish_step() leaves nothing
  void backward(const at::Tensor& loss, double weight) override {
    parameters_->backward(loss, weight);
  }
  void finish_gradients(std::vector<double>& extras) override {
    sum_ = parameters_->finish_gradients(extras);
  }
  double gradient_norm() override { return sum_.norm; }
  std::optional<optim::StepVerdict> settled() override {
    if (!sum_.applied_scale) return std::nullopt;
    return *sum_.applied_scale > 0 ? optim::StepVerdict::kApply : optim::StepVerdict::kNonFinite;
  }

  // A worker that is alone may have had no sample of a batch.
  void finish_step(optim::StepVerdict verdict) override {
    const bool nothing = sums_.alone() && sum_.micro_batches == 0;
    if (verdict == optim::StepVerdict::kApply && !nothing) {
      parameters_->step(learning_rate_, sum_.applied_scale.value_or(1));
      if (average_) {
        parameters_->weights();
        average_->update(pieces());
      }
    } else {
      parameters_->drop_gradients();
    }
    share(module_.buffers());
  }

  // Who is alone looks here at what others have done meanwhile.
  void use_average(bool average) override {
    const at::Tensor weights = parameters_->weights();
    const bool swapped = average_ && average_->swapped();
    if (sums_.alone() && !swapped) parameters_->pull();
    if (average_ && swapped != average) average_->swap(pieces());
  }

  NamedTensors gather_weights() override {
    parameters_->weights();
    return named_weights(module_);
  }
  void set_weights(const NamedTensors& values) override {
    parameters_->weights();
    if (is_root() || (sums_.alone() && !rest().empty())) {
      assign_weights(values, named_weights(module_));
    }
    parameters_->assign(is_root());
    share(rest());
    start_average();
  }
  WorkerSums& sums() override { return sums_; }
  void give_back() override {
    parameters_->weights();
    parameters_->worker().leave();
  }

 private:
  bool is_root() const { return parameters_->worker().rank() == 0; }

  // What the servers do not keep: parameters that are not trained, and buffers.
  std::vector<at::Tensor> rest() const {
    std::vector<at::Tensor> result = parameters_->layout().frozen;
    for (const at::Tensor& buffer : module_.buffers()) result.push_back(buffer);
    return result;
  }

  // They become rank 0's, as long as there is one; who is alone keeps its own.
  void share(const std::vector<at::Tensor>& tensors) {
    if (sums_.alone() || tensors.empty()) return;
    std::vector<std::byte> bytes(1, std::byte{is_root()});
    std::vector<at::Tensor> values;
    for (const at::Tensor& tensor : tensors) {
      values.push_back(tensor.detach().contiguous());
      const auto* const begin = static_cast<const std::byte*>(values.back().data_ptr());
      bytes.insert(bytes.end(), begin, begin + values.back().nbytes());
    }
    if (!is_root()) std::fill(bytes.begin(), bytes.end(), std::byte{0});
    if (!sums_.sum(std::span(bytes)) || bytes[0] == std::byte{0}) return;
    const at::NoGradGuard no_grad;
    const std::byte* from = bytes.data() + 1;
    for (std::size_t i = 0; i < tensors.size(); ++i) {
      std::memcpy(values[i].data_ptr(), from, values[i].nbytes());
      from += values[i].nbytes();
      if (values[i].data_ptr() != tensors[i].data_ptr()) tensors[i].copy_(values[i]);
    }
  }

  std::array<optim::PieceUpdate, 1> pieces() const { return {{{parameters_->weights()}}}; }
  void start_average() {
    if (average_decay_ != 0) average_.emplace(average_decay_, pieces());
  }

  torch::nn::Module& module_;
  const std::int64_t num_micro_batches_;
  const double learning_rate_;
  const std::shared_ptr<ServedParameters> parameters_;
  ServedSums sums_;
  GradientSum sum_;  // of the step
  const double average_decay_;
  std::optional<optim::WeightAverage> average_;
};

}  // namespace

ServedModel make_served_model(torch::nn::Module& module, const OptimizerRecipe& recipe,
                              ServedOptions options, double average_decay) {
  auto model = std::make_unique<ServedSpread>(
      module, recipe, completed(std::move(options), recipe, average_decay), average_decay);
  std::shared_ptr<ServedParameters> parameters = model->parameters();
  return {std::move(model), std::move(parameters)};
}

}  // namespace trireme
