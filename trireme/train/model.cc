// Copyright 2026 The Trireme authors
// SPDX-License-Identifier: Apache-2.0

// fit() and evaluate() are passes over the samples. A pass is a table of quantities (how many
// samples, the loss, then the metrics), a row for each micro-batch of each batch; a rank fills the
// rows of its own and leaves zeros in the others, so the sum over ranks is the table itself,
// whatever the order of adding. Its columns are then added from top to bottom, on every rank alike.
//
// A row without samples that has some to count is nobody's: of a worker that was lost, or, where
// each worker goes its own way, of any other. In training the pass goes without it; else every rank
// that sees it missing computes it.

#include "trireme/train/model.h"

#include <ATen/CPUGeneratorImpl.h>
#include <ATen/core/grad_mode.h>
#include <ATen/ops/zeros.h>
#include <torch/nn/module.h>

#include <algorithm>
#include <mutex>
#include <numeric>
#include <span>
#include <utility>

#include "trireme/base/error.h"
#include "trireme/base/log.h"
#include "trireme/base/random.h"
#include "trireme/train/batch_cut.h"
#include "trireme/train/named_weights.h"

namespace trireme {
namespace {

// The numbers of the samples at the positions. An empty micro-batch computes one sample of its
// batch, which then counts for nothing: all ranks do the same number of things.
std::vector<std::int64_t> numbers_at(const Cut& cut, std::int64_t b, const Positions& part,
                                     const RandomPermutation* order) {
  const std::int64_t begin = part.count() > 0 ? part.begin : cut.batch(b).begin;
  std::vector<std::int64_t> numbers(
      static_cast<std::size_t>(std::max<std::int64_t>(part.count(), 1)));
  std::iota(numbers.begin(), numbers.end(), begin);
  if (order != nullptr) {
    for (std::int64_t& n : numbers) {
      n = static_cast<std::int64_t>((*order)(static_cast<std::uint64_t>(n)));
    }
  }
  return numbers;
}

// What a module draws depends on the micro-batch, not on what its rank drew before.
void seed_generator(std::uint64_t seed) {
  at::Generator generator = at::detail::getDefaultCPUGenerator();
  const std::lock_guard lock(generator.mutex());
  generator.set_current_seed(seed);
}

// LibTorch's generator as it was, when this goes.
class GeneratorGuard {
 public:
  GeneratorGuard() : generator_(at::detail::getDefaultCPUGenerator()) {
    const std::lock_guard lock(generator_.mutex());
    state_ = generator_.get_state();
  }
  ~GeneratorGuard() {
    const std::lock_guard lock(generator_.mutex());
    generator_.set_state(state_);
  }
  GeneratorGuard(const GeneratorGuard&) = delete;
  GeneratorGuard& operator=(const GeneratorGuard&) = delete;

 private:
  at::Generator generator_;
  at::Tensor state_;
};

double value_of(const at::Tensor& mean, const std::string& name) {
  if (!mean.defined() || mean.numel() != 1) {
    throw_error<ShapeError>("{} must be one number, the mean over the samples; it has {}", name,
                            mean.defined() ? mean.numel() : 0);
  }
  return mean.detach().item<double>();
}

// The columns of a pass.
constexpr std::size_t kCount = 0;
constexpr std::size_t kLoss = 1;
constexpr std::size_t kMetrics = 2;

// names: of the columns from kLoss on.
Logs means_of(std::span<const double> table, const std::vector<std::string>& names) {
  const std::size_t columns = kLoss + names.size();
  std::vector<double> sums(columns);
  for (std::size_t i = 0; i < table.size(); ++i) sums[i % columns] += table[i];
  Logs logs;
  for (std::size_t q = kLoss; q < columns; ++q) logs.add(names[q - kLoss], sums[q] / sums[kCount]);
  return logs;
}

// Counts and losses of a step's rows: what the ranks tell one another before they judge it.
std::vector<double> counts_and_losses(std::span<const double> rows, std::size_t columns) {
  std::vector<double> result;
  for (const std::size_t column : {kCount, kLoss}) {
    for (std::size_t i = column; i < rows.size(); i += columns) result.push_back(rows[i]);
  }
  return result;
}

// Buffers as they were: a bad batch is also in the running means.
class BufferValues {
 public:
  explicit BufferValues(std::vector<at::Tensor> buffers) : buffers_(std::move(buffers)) {
    for (const at::Tensor& buffer : buffers_) values_.push_back(buffer.clone());
  }
  void put_back() const {
    const at::NoGradGuard no_grad;
    for (std::size_t i = 0; i < buffers_.size(); ++i) buffers_[i].copy_(values_[i]);
  }

 private:
  std::vector<at::Tensor> buffers_;
  std::vector<at::Tensor> values_;
};

void check(const FitOptions& options) {
  if (options.initial_epoch < 0 || options.epochs < options.initial_epoch) {
    throw_error<ConfigError>("epochs {} after an initial epoch of {}", options.epochs,
                             options.initial_epoch);
  }
}

}  // namespace

std::vector<double> History::values(const std::string& name) const {
  std::vector<double> result;
  for (const Logs& logs : epochs) result.push_back(logs.at(name));
  return result;
}

// One pass over a dataset.
struct Model::Pass {
  const Dataset& data;
  Cut cut;
  const RandomPermutation* order = nullptr;  // null: as they are
  const RandomStream* dropout = nullptr;     // null: not training
};

Model::Model(const StrategyScope& scope, std::shared_ptr<torch::nn::Module> module, Forward forward)
    : strategy_(&scope.strategy()), module_(std::move(module)), forward_(std::move(forward)) {
  if (!module_ || !forward_) throw_error<ConfigError>("a model needs a module and its forward()");
}
Model::~Model() = default;
Model::Model(Model&&) noexcept = default;
Model& Model::operator=(Model&&) noexcept = default;

void Model::compile(const OptimizerRecipe& optimizer, Loss loss, std::vector<Metric> metrics,
                    const CompileOptions& options) {
  if (!loss.mean) throw_error<ConfigError>("a model needs a loss");
  if (!(options.average_decay >= 0 && options.average_decay < 1)) {
    throw_error<ConfigError>("average_decay is {}: 0 (none) or above, and below 1",
                             options.average_decay);
  }
  if (options.guard) options.guard->validate();
  loss_ = std::move(loss);
  metrics_ = std::move(metrics);
  if (spread_) {
    spread_->use_average(true);
    spread_->give_back();
  }
  spread_.reset();  // one at a time has the module's parameters
  spread_ = strategy_->spread(*module_, optimizer, options.average_decay);
  guard_.reset();
  if (options.guard) guard_.emplace(*options.guard);
  steps_ = 0;
}

// Whether this rank says and reads what is needed once.
bool Model::speaks() { return strategy_->rank() == 0 || spread().sums().alone(); }

SpreadModel& Model::spread() {
  if (!spread_) throw_error<ConfigError>("compile() comes before anything else with a model");
  return *spread_;
}

// With the average in the weights' place, also after a pass that has thrown.
SpreadModel& Model::averaged() {
  spread().use_average(true);
  return *spread_;
}

// One micro-batch: fills its row of the table; in training its gradients join the step's.
void Model::compute(const Pass& pass, std::int64_t batch, std::int64_t micro_batch,
                    std::span<double> sums) {
  const Positions part = pass.cut.part(batch, micro_batch);
  const auto row = batch * pass.cut.micro_batches + micro_batch;
  if (pass.dropout != nullptr) seed_generator(pass.dropout->bits(static_cast<std::uint64_t>(row)));
  const Samples samples = pass.data.samples(numbers_at(pass.cut, batch, part, pass.order));
  at::Tensor predictions;
  const at::Tensor loss = spread_->forward([&] {
    predictions = forward_(samples.inputs);
    return loss_.mean(predictions, samples.targets);
  });
  const auto weight = static_cast<double>(part.count());
  const double loss_value = value_of(loss, "the loss");
  if (pass.dropout != nullptr) spread_->backward(loss, weight);
  if (part.count() == 0) return;
  const at::NoGradGuard no_grad;
  sums[kCount] = weight;
  sums[kLoss] = weight * loss_value;
  for (std::size_t i = 0; i < metrics_.size(); ++i) {
    const Metric& metric = metrics_[i];
    sums[kMetrics + i] = weight * value_of(metric.mean(predictions, samples.targets), metric.name);
  }
}

// Of a step, by the counts and losses of all ranks. Counts and tells what is passed over.
optim::StepVerdict Model::judge(std::span<const double> counts_and_losses) {
  if (const auto verdict = spread_->settled()) return *verdict;
  const auto rows = static_cast<std::ptrdiff_t>(counts_and_losses.size() / 2);
  const auto losses = counts_and_losses.begin() + rows;
  const double samples = std::accumulate(counts_and_losses.begin(), losses, 0.0);
  // A worker that goes its own way may have nothing to do in a step.
  if (samples == 0) return optim::StepVerdict::kApply;
  const double loss = std::accumulate(losses, counts_and_losses.end(), 0.0) / samples;
  const double norm = spread_->gradient_norm();
  const std::int64_t step = steps_++;
  const optim::StepVerdict verdict = guard_->judge(step, loss, norm);
  if (verdict != optim::StepVerdict::kApply && speaks()) {
    log_warn("{}", optim::describe_skipped(step, verdict, loss, norm, guard_->state()));
  }
  return verdict;
}

// Fills the rows of this rank's micro-batches.
void Model::compute(const Pass& pass, std::int64_t batch, std::span<double> rows) {
  for (const std::int64_t m : spread_->micro_batches()) {
    const auto row = static_cast<std::size_t>(m);
    compute(pass, batch, m, rows.subspan(row * columns(), columns()));
  }
}

// A step of training. Whether it was applied.
bool Model::train(const Pass& pass, std::int64_t batch, std::span<double> rows) {
  const BufferValues before(guard_ ? module_->buffers() : std::vector<at::Tensor>());
  const auto pass_over = [&] {
    spread_->finish_step(optim::StepVerdict::kNonFinite);
    before.put_back();
  };
  spread_->begin_step();
  compute(pass, batch, rows);
  std::vector<double> told;
  if (guard_) told = counts_and_losses(rows, columns());
  spread_->finish_gradients(told);
  try {
    if (guard_ && judge(told) != optim::StepVerdict::kApply) {
      pass_over();
      return false;
    }
  } catch (const Error&) {
    pass_over();  // so that the model is as it was before the step
    throw;
  }
  spread_->finish_step(optim::StepVerdict::kApply);
  return true;
}

// Computes what nobody has.
void Model::complete(const Pass& pass, std::span<double> table) {
  for (std::int64_t b = 0; b < pass.cut.batches(); ++b) {
    for (std::int64_t m = 0; m < pass.cut.micro_batches; ++m) {
      const auto row = static_cast<std::size_t>(b * pass.cut.micro_batches + m);
      const auto sums = table.subspan(row * columns(), columns());
      if (sums[kCount] == 0 && pass.cut.part(b, m).count() > 0) compute(pass, b, m, sums);
    }
  }
}

Logs Model::run(const Pass& pass) {
  const bool training = pass.dropout != nullptr;
  spread_->use_average(!training);
  module_->train(training);
  const at::AutoGradMode grad_mode(training);
  const std::size_t batch_rows = static_cast<std::size_t>(pass.cut.micro_batches) * columns();
  std::vector<double> table(static_cast<std::size_t>(pass.cut.batches()) * batch_rows);
  for (std::int64_t b = 0; b < pass.cut.batches(); ++b) {
    const auto rows =
        std::span(table).subspan(static_cast<std::size_t>(b) * batch_rows, batch_rows);
    if (!training) {
      compute(pass, b, rows);
    } else if (!train(pass, b, rows)) {
      std::ranges::fill(rows, 0.0);
    }
  }
  spread_->use_average(true);
  spread_->sums().sum(table, columns());
  if (!training) complete(pass, table);
  std::vector<std::string> names{"loss"};
  for (const Metric& metric : metrics_) names.push_back(metric.name);
  return means_of(table, names);
}

History Model::fit(const Dataset& data, const FitOptions& options) {
  check(options);
  const Cut cut = checked_cut(data.size(), options.batch_size, spread().num_micro_batches());
  std::vector<AnyCallback> callbacks = options.callbacks;
  if (options.progress) callbacks.insert(callbacks.begin(), ProgressLines());
  const GeneratorGuard generator;
  const optim::GuardState before = guard_ ? guard_->state() : optim::GuardState();
  History history;
  stop_ = false;
  for (const AnyCallback& callback : callbacks) callback.get().on_train_begin(*this);
  for (std::int64_t epoch = options.initial_epoch + 1; epoch <= options.epochs && !stop_; ++epoch) {
    const auto stream = static_cast<std::uint64_t>(epoch);
    const RandomPermutation order(static_cast<std::uint64_t>(cut.samples), options.seed, stream);
    const RandomStream dropout(options.seed, "dropout." + std::to_string(epoch));
    Logs logs = run({data, cut, options.shuffle ? &order : nullptr, &dropout});
    if (options.validation) {
      const Logs validation = evaluate(*options.validation, options.batch_size);
      for (const auto& [name, value] : validation.values()) logs.add("val_" + name, value);
    }
    history.epochs.push_back(logs);
    if (guard_) {
      history.non_finite = guard_->state().non_finite - before.non_finite;
      history.spikes = guard_->state().spikes - before.spikes;
    }
    for (const AnyCallback& callback : callbacks) {
      callback.get().on_epoch_end(*this, {epoch, options.epochs, logs});
    }
    double stops = stop_ ? 1 : 0;
    spread_->sums().sum({&stops, 1});
    stop_ = stops > 0;
  }
  for (const AnyCallback& callback : callbacks) callback.get().on_train_end(*this);
  return history;
}

Logs Model::evaluate(const Dataset& data, std::int64_t batch_size) {
  return run({data, checked_cut(data.size(), batch_size, spread().num_micro_batches())});
}

// Predictions for count rows of the inputs, at least one, into what is made when its shape is
// known.
void Model::predict_rows(const at::Tensor& inputs, const Positions& rows, at::Tensor& predictions) {
  const std::int64_t count = std::max<std::int64_t>(rows.count(), 1);
  const at::Tensor found =
      spread_->forward([&] { return forward_(inputs.narrow(0, rows.begin, count)); });
  if (found.dim() < 1 || found.size(0) != count) {
    throw_error<ShapeError>("the model made no row of predictions for each of {} inputs", count);
  }
  if (!predictions.defined()) {
    std::vector<std::int64_t> sizes = found.sizes().vec();
    sizes[0] = inputs.size(0);
    predictions = at::zeros(sizes, found.options());
  }
  if (rows.count() > 0) predictions.narrow(0, rows.begin, count).copy_(found);
}

// Each rank writes the rows of its micro-batches between zeros; the bytes are added, which is exact
// for any dtype. Rows that are nobody's are then everybody's, as in a pass.
at::Tensor Model::predict(const at::Tensor& inputs, std::int64_t batch_size) {
  const std::int64_t rows = inputs.dim() > 0 ? inputs.size(0) : 0;
  const Cut cut = checked_cut(rows, batch_size, averaged().num_micro_batches());
  const at::NoGradGuard no_grad;
  module_->eval();
  at::Tensor result;
  std::vector<double> done(static_cast<std::size_t>(cut.batches() * cut.micro_batches));
  const auto compute = [&](std::int64_t b, std::int64_t m) {
    const Positions part = cut.part(b, m);
    const std::int64_t first = cut.batch(b).begin;
    predict_rows(inputs, part.count() > 0 ? part : Positions{first, first}, result);
    done[static_cast<std::size_t>(b * cut.micro_batches + m)] = 1;
  };
  for (std::int64_t b = 0; b < cut.batches(); ++b) {
    for (const std::int64_t m : spread_->micro_batches()) compute(b, m);
  }
  if (spread_->sums().sum({static_cast<std::byte*>(result.data_ptr()), result.nbytes()})) {
    spread_->sums().sum(done);
  }
  for (std::size_t i = 0; i < done.size(); ++i) {
    const auto b = static_cast<std::int64_t>(i) / cut.micro_batches;
    const auto m = static_cast<std::int64_t>(i) % cut.micro_batches;
    if (done[i] == 0 && cut.part(b, m).count() > 0) compute(b, m);
  }
  return result;
}

SpreadModel::NamedTensors Model::weights() { return averaged().gather_weights(); }

void Model::set_weights(const SpreadModel::NamedTensors& values) { spread().set_weights(values); }

void Model::save_weights(const std::string& folder, std::int64_t step) {
  const SpreadModel::NamedTensors values = weights();
  if (strategy_->rank() == 0) save_named_weights(values, folder, step);
}

void Model::load_weights(const std::string& path) {
  SpreadModel::NamedTensors values;
  if (speaks()) values = load_named_weights(path);
  set_weights(values);
}

}  // namespace trireme
