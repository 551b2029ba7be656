// Copyright 2026 The Trireme authors
// SPDX-License-Identifier: Apache-2.0

#include "trireme/parallel/gradient_reducer.h"

#include <ATen/ops/full_like.h>

#include <algorithm>
#include <cmath>
#include <exception>
#include <utility>

#include "trireme/base/error.h"
#include "trireme/ops/step_parts.h"
#include "trireme/parallel/micro_batch_plan.h"
#include "trireme/parallel/tensor_buffer.h"

namespace trireme {
namespace {

// Of a bucket, at least.
std::int64_t elements_of(std::int64_t bytes, const at::Tensor& gradients) {
  if (bytes < 0) throw_error<ConfigError>("bucket_bytes is {}: it is 0 or more", bytes);
  return std::max<std::int64_t>(1, bytes / static_cast<std::int64_t>(gradients.element_size()));
}

void check_weight(double weight) {
  if (std::isfinite(weight) && weight >= 0) return;
  throw_error<Error>("the weight of a micro-batch is {}: give a finite one of at least 0", weight);
}

// What a loss's gradient is, so that gradients are weight times what they are. Undefined for 1.
at::Tensor seed_of(const at::Tensor& loss, double weight) {
  check_weight(weight);
  return weight == 1 ? at::Tensor() : at::full_like(loss.detach(), weight);
}

std::string first_line(const std::string& text) { return text.substr(0, text.find('\n')); }

}  // namespace

void all_reduce_rows(Group& group, const at::Tensor& elements) {
  group.all_reduce(buffer_of_tensor(elements));
}

GradientReducer::GradientReducer(FlatParameters& flat, Group& group, const ReducerOptions& options,
                                 Exchange exchange)
    : flat_(flat),
      options_(options),
      exchange_(std::move(exchange)),
      entry_of_(entries_by_parameter(flat.layout())),
      queue_(flat.entries(), make_buckets(flat.entries(), flat.size(),
                                          elements_of(options.bucket_bytes, flat.grad()))),
      tree_(flat.size(), &group, flat.grad().scalar_type()),
      account_(names_of(flat.entries())),
      thread_(group.duplicate("gradients")),
      hooks_(flat.layout().parameters,
             [this](std::size_t entry, bool by_autograd) { on_gradient(entry, by_autograd); }) {
  const MicroBatchPlan plan(options.micro_batches == 0 ? group.size() : options.micro_batches,
                            group.size());
  std::vector<MicroBatchRange> rounds = plan.rounds(group.rank());
  // The last round first: each is added to what follows it, which is the top of the tree.
  std::reverse(rounds.begin(), rounds.end());
  for (const MicroBatchRange& round : rounds) {
    for (std::int64_t m = round.begin; m < round.end; ++m) {
      micro_batches_.push_back(m);
      ends_round_.push_back(m + 1 == round.end);
    }
  }
}

GradientReducer::~GradientReducer() {
  if (computing_ || position_ > 0) thread_.group().abandon("it ended in the middle of a step");
}

void GradientReducer::backward(const at::Tensor& loss, double weight) {
  const at::Tensor seed = seed_of(loss, weight);
  begin_micro_batch(seed.defined() ? seed.max().item<double>() : 1);
  if (ends_round_[position_]) foresee(loss);
  run_pass([&] {
    const bool has_rules = late_ && ends_round_[position_];
    flat_.backward(loss, seed, has_rules ? late_->rules() : ops::DirectGradients::Rules());
  });
}

void GradientReducer::add(double weight, const std::function<void()>& f) {
  check_weight(weight);
  begin_micro_batch(weight);
  run_pass([&] {
    const ops::DirectGradients direct({.before_addition = [this](const at::Tensor& parameter) {
      const auto entry = entry_of_.find(parameter.unsafeGetTensorImpl());
      if (entry != entry_of_.end()) account_.saw(entry->second);
    }});
    f();
  });
}

void GradientReducer::run_pass(const std::function<void()>& f) {
  try {
    f();
  } catch (const CommError&) {  // which all ranks get
    throw;
  } catch (const std::exception& error) {
    spoil_step(error.what());
    throw;
  }
  end_micro_batch();
}

void GradientReducer::spoil_step(const std::string& reason) {
  if (!spoiled_.empty()) return;
  spoiled_ = first_line(reason);
  thread_.group().abandon("a backward pass ended with: " + spoiled_);
}

void GradientReducer::check_step() const {
  if (spoiled_.empty()) return thread_.check();
  throw_error<Error>(
      "a backward pass of this step ended with \"{}\", half way: there is no going on from its "
      "gradients",
      spoiled_);
}

void GradientReducer::begin_micro_batch(double weight) {
  check_step();
  if (computing_ || position_ == micro_batches_.size()) {
    throw_error<Error>(
        "a step has {} backward pass{} on each rank, and this is one more before "
        "finish_gradients(): call it after each step, or ask for more micro-batches",
        micro_batches_.size(), micro_batches_.size() == 1 ? "" : "es");
  }
  // What the communication thread still folds is not zeros yet.
  if (position_ > 0 && ends_round_[position_ - 1]) thread_.wait(matrix_ticket_);
  if (position_ > 0) flat_.exchange_grad(tree_.buffer());
  flat_.bring_gradients_home();
  account_.add_weight(weight);
  computing_ = true;
  if (!ends_round_[position_]) return;
  queue_.begin();
  if (late_) late_->begin({});
}

void GradientReducer::on_gradient(std::size_t entry, bool by_autograd) {
  try {
    take_gradient(entry, by_autograd);
  } catch (const CommError&) {
    throw;
  } catch (const std::exception& error) {  // of a gradient that is added already
    spoil_step(error.what());
    throw;
  }
}

void GradientReducer::take_gradient(std::size_t entry, bool by_autograd) {
  if (!computing_ && micro_batches_.size() > 1) {
    throw_error<Error>(
        "loss.backward() adds to gradients whose step has {} micro-batches on each rank: call "
        "backward(loss) of the replica instead",
        micro_batches_.size());
  }
  if (!computing_) begin_micro_batch(1);
  const bool ends_round = ends_round_[position_];
  const bool is_matrix = ends_round && late_ && late_->entry() == entry;
  if (is_matrix && by_autograd) late_->added_by_autograd();
  const bool has_left = is_matrix && late_->has_rows_apart();
  if (ends_round && queue_.has_arrived(entry) && !has_left) {
    throw_error<Error>(
        "the gradient of {} is already on its way: a second backward pass began before "
        "finish_gradients(), or several ops::checkpoint() use it",
        flat_.entries()[entry].name);
  }
  flat_.bring_gradient_home(entry);
  account_.saw(entry);
  if (!ends_round) return;
  watch_matrix();
  if (!queue_.has_arrived(entry)) launch(queue_.arrive(entry));
  if (foreseen_ && !foreseen_->has_arrived(entry)) foreseen_->arrive(entry);
}

void GradientReducer::launch(const std::vector<std::size_t>& buckets) {
  for (const std::size_t bucket : buckets) {
    const TimedPart part("sum gradients");
    const FlatSegment& range = queue_.buckets()[bucket];
    if (holds_some_of_matrix(range)) {
      launch_matrix_bucket(bucket);
      continue;
    }
    const at::Tensor sum = tree_.fold(flat_.grad(), range.begin, range.end);
    thread_.post([this, bucket, sum](Group& group) { exchange_(group, bucket, sum); });
  }
}

void GradientReducer::end_micro_batch() {
  if (ends_round_[position_]) {
    launch(queue_.finish());
    if (foreseen_) foreseen_->finish();
    finish_matrix();
    rounds_.push_back(tree_.take(flat_.grad()));
  } else {
    const TimedPart part("sum gradients");
    tree_.push(flat_.grad());
  }
  ++position_;
  computing_ = false;
}

void GradientReducer::finish() {
  check_step();
  if (computing_) end_micro_batch();
  while (position_ < micro_batches_.size()) {
    begin_micro_batch(0);
    if (late_) late_->begin_empty();
    end_micro_batch();
  }
  {
    const TimedPart part("wait for gradients");
    account_.close(thread_);
  }
  position_ = 0;
  lay_sum_into_gradients();
  if (account_.steps() == 1) agree_on_order();
}

void GradientReducer::lay_sum_into_gradients() {
  for (std::size_t i = 1; i < rounds_.size(); ++i) {
    add_gradients(rounds_[i], rounds_[i - 1]);
    tree_.give_back(std::move(rounds_[i - 1]));
  }
  flat_.exchange_grad(rounds_.back());
  rounds_.clear();
}

// The first step's matrix, on rank 0, leaves as all others do.
void GradientReducer::foresee(const at::Tensor& loss) {
  if (account_.steps() == 0) {
    Group& group = thread_.group();
    if (group.rank() != 0 || group.size() == 1 || !options_.exchange_rows) return;
    const auto entry =
        LateRows::find(loss, flat_.layout(), elements_of(options_.bucket_bytes, flat_.grad()));
    if (!entry) return;
    late_.emplace(flat_.layout(), *entry);
    foreseen_.emplace(queue_);
  }
  if (!late_) return;
  late_->begin(loss);
  watch_matrix();
}

void GradientReducer::watch_matrix() {
  if (!late_ || !late_->is_complete_but_rows()) return;
  const std::size_t entry = late_->entry();
  if (foreseen_) {
    if (!foreseen_->has_arrived(entry)) foreseen_->arrive(entry);
  } else if (!queue_.has_arrived(entry)) {
    late_->set_rows_apart(flat_.grad());
    launch(queue_.arrive(entry));
  }
}

bool GradientReducer::holds_some_of_matrix(const FlatSegment& bucket) const {
  if (!late_ || foreseen_) return false;
  const FlatEntry& matrix = flat_.entries()[late_->entry()];
  return matrix.offset < bucket.end && matrix.offset + matrix.count > bucket.begin;
}

void GradientReducer::launch_matrix_bucket(std::size_t bucket) {
  if (!travel_) {
    const FlatEntry& matrix = flat_.entries()[late_->entry()];
    travel_ = std::make_shared<MatrixTravel>(
        tree_.chain(flat_.grad(), matrix.offset, matrix.offset + matrix.count), late_->marks());
    thread_.post([travel = travel_](Group& group) { travel->agree(group); });
  }
  const FlatSegment& range = queue_.buckets()[bucket];
  thread_.post([this, bucket, travel = travel_,
                chain = tree_.chain(flat_.grad(), range.begin, range.end)](Group& group) {
    travel->send(group, chain, [this, bucket](Group& wire, const at::Tensor& sum) {
      exchange_(wire, bucket, sum);
    });
  });
}

void GradientReducer::finish_matrix() {
  if (!travel_) return;
  matrix_ticket_ = thread_.post([this, travel = std::exchange(travel_, nullptr),
                                 rows = late_->rows(), sums = late_->row_sums()](Group& group) {
    travel->finish(group, rows, sums, options_.exchange_rows);
  });
}

void GradientReducer::agree_on_order() {
  const bool early = foreseen_ && late_->is_complete_but_rows();
  queue_.set_order(roots_order(thread_.group(),
                               early ? foreseen_->completion_order() : queue_.completion_order()));
  const std::size_t entry = roots_order(thread_.group(), {early ? late_->entry() + 1 : 0}).front();
  foreseen_.reset();
  late_.reset();
  if (entry > 0) late_.emplace(flat_.layout(), entry - 1);
}

}  // namespace trireme
