// Copyright 2026 The Trireme authors
// SPDX-License-Identifier: Apache-2.0

#include "trireme/parallel/tensor/row_chunks.h"

#include <ATen/core/grad_mode.h>
#include <ATen/core/ivalue.h>
#include <ATen/ops/cat.h>
#include <ATen/ops/empty.h>
#include <torch/csrc/autograd/custom_function.h>

#include <utility>
#include <vector>

#include "trireme/comm/group.h"
#include "trireme/ops/step_parts.h"
#include "trireme/parallel/tensor/activation_exchange.h"
#include "trireme/parallel/tensor_buffer.h"

namespace trireme::detail {
namespace {

using torch::autograd::AutogradContext;
using torch::autograd::variable_list;

// One chunk's way to the other ranks, forward and, of its gradient, backward. Each is begun and
// then ended; buffers stay with it meanwhile.
class Exchange : public torch::CustomClassHolder {
 public:
  virtual void begin(const at::Tensor& x) = 0;
  virtual at::Tensor end() = 0;
  // Returns where the gradient of x will be.
  virtual at::Tensor begin_backward(const at::Tensor& gradient) = 0;
  virtual void end_backward() = 0;
};

void wait_for(Work& work) {
  const TimedPart part("tensor parallel");
  work.wait();
}

// An operation whose buffers go with what holds it: they stay until it is done, also when an error
// ends the pass meanwhile.
class OwnWork {
 public:
  OwnWork() = default;
  OwnWork(const OwnWork&) = delete;
  OwnWork& operator=(const OwnWork&) = delete;
  ~OwnWork() { settle(); }

  void start(Work work) {
    settle();
    work_ = std::move(work);
    is_under_way_ = true;
  }
  void wait() {
    is_under_way_ = false;
    wait_for(work_);
  }
  // At the latest at the group's deadline.
  void settle() noexcept {
    if (!std::exchange(is_under_way_, false)) return;
    try {
      work_.wait();
    } catch (const std::exception&) {
      // Whoever waits for something else hears of it.
    }
  }

 private:
  Work work_;
  bool is_under_way_ = false;
};

// copy_to_ranks().
class Copy final : public Exchange {
 public:
  explicit Copy(Group& group) : group_(group) {}
  void begin(const at::Tensor& x) override { x_ = x.detach(); }
  at::Tensor end() override { return std::exchange(x_, at::Tensor()); }
  at::Tensor begin_backward(const at::Tensor& gradient) override {
    // A copy: others may have the gradient.
    sum_ = gradient.clone(at::MemoryFormat::Contiguous);
    work_.start(group_.start_all_reduce(buffer_of_tensor(sum_)));
    return sum_;
  }
  void end_backward() override {
    work_.wait();
    sum_.reset();
  }

 private:
  Group& group_;
  at::Tensor x_, sum_;
  OwnWork work_;
};

// sum_over_ranks().
class Sum final : public Exchange {
 public:
  explicit Sum(Group& group) : group_(group) {}
  void begin(const at::Tensor& x) override {
    sum_ = x.detach().contiguous();
    work_.start(group_.start_all_reduce(buffer_of_tensor(sum_)));
  }
  at::Tensor end() override {
    work_.wait();
    return std::exchange(sum_, at::Tensor());
  }
  at::Tensor begin_backward(const at::Tensor& gradient) override { return gradient; }
  void end_backward() override {}

 private:
  Group& group_;
  at::Tensor sum_;
  OwnWork work_;
};

// Rows that each rank has of a chunk.
struct ChunkRows {
  std::vector<std::int64_t> counts;  // by rank
  int rank = 0;

  std::int64_t all() const {
    std::int64_t sum = 0;
    for (const std::int64_t count : counts) sum += count;
    return sum;
  }
  std::vector<std::int64_t> elements(std::int64_t width) const {
    std::vector<std::int64_t> result = counts;
    for (std::int64_t& count : result) count *= width;
    return result;
  }
  at::Tensor empty_rows(const at::Tensor& like, bool own) const {
    return at::empty({own ? counts[static_cast<std::size_t>(rank)] : all(), like.size(-1)},
                     like.options().requires_grad(false));
  }
};

// An all_gather or a reduce_scatter of a chunk's rows, with what it needs meanwhile.
class RowsUnderWay {
 public:
  at::Tensor gather(const at::Tensor& own, const ChunkRows& rows, Group& group) {
    work_.settle();
    in_ = own.detach().contiguous();
    out_ = rows.empty_rows(in_, false);
    counts_ = rows.elements(in_.size(-1));
    work_.start(group.start_all_gather(buffer_of_tensor(in_), buffer_of_tensor(out_), counts_));
    return out_;
  }
  at::Tensor scatter(const at::Tensor& all, const ChunkRows& rows, Group& group) {
    work_.settle();
    in_ = all.detach().contiguous();
    out_ = rows.empty_rows(in_, true);
    counts_ = rows.elements(in_.size(-1));
    work_.start(group.start_reduce_scatter(buffer_of_tensor(in_), buffer_of_tensor(out_),
                                           ReduceOp::kSum, counts_));
    return out_;
  }
  at::Tensor wait() {
    work_.wait();
    in_.reset();
    return std::exchange(out_, at::Tensor());
  }

 private:
  at::Tensor in_, out_;
  std::vector<std::int64_t> counts_;
  OwnWork work_;
};

// gather_rows(); what is gathered can be freed and brought again.
class Gather final : public Exchange {
 public:
  Gather(Group& group, ChunkRows rows) : group_(group), rows_(std::move(rows)) {}
  void begin(const at::Tensor& x) override {
    own_ = x.detach();
    forward_.gather(x, rows_, group_);
  }
  at::Tensor end() override {
    const at::Tensor all = forward_.wait();
    storage_ = all.storage();
    return all;
  }
  at::Tensor begin_backward(const at::Tensor& gradient) override {
    return backward_.scatter(gradient, rows_, group_);
  }
  void end_backward() override { backward_.wait(); }

  void free_memory() { storage_.set_data_ptr(at::DataPtr(nullptr, own_.device())); }
  void begin_again() {
    is_coming_ = storage_.data() == nullptr;
    if (is_coming_) again_.gather(own_, rows_, group_);
  }
  void end_again() {
    if (!std::exchange(is_coming_, false)) return;
    at::Storage storage = again_.wait().storage();
    storage_.set_data_ptr(storage.set_data_ptr(at::DataPtr(nullptr, own_.device())));
  }

 private:
  Group& group_;
  ChunkRows rows_;
  RowsUnderWay forward_, backward_, again_;
  at::Tensor own_;
  at::Storage storage_;
  bool is_coming_ = false;
};

// scatter_row_sums(); in the backward pass what a Gather has freed comes again, too.
class Scatter final : public Exchange {
 public:
  Scatter(Group& group, ChunkRows rows, c10::intrusive_ptr<Gather> freed)
      : group_(group), rows_(std::move(rows)), freed_(std::move(freed)) {}
  void begin(const at::Tensor& x) override { forward_.scatter(x, rows_, group_); }
  at::Tensor end() override { return forward_.wait(); }
  at::Tensor begin_backward(const at::Tensor& gradient) override {
    const at::Tensor result = backward_.gather(gradient, rows_, group_);
    if (freed_) freed_->begin_again();
    return result;
  }
  void end_backward() override {
    backward_.wait();
    if (freed_) freed_->end_again();
  }

 private:
  Group& group_;
  ChunkRows rows_;
  c10::intrusive_ptr<Gather> freed_;
  RowsUnderWay forward_, backward_;
};

using ExchangePtr = c10::intrusive_ptr<Exchange>;

Exchange& exchange_of(AutogradContext* context) {
  const auto capsule = context->saved_data["exchange"].toCapsule();
  return static_cast<Exchange&>(*capsule);
}

// Its output stands for x until the exchange ends: nobody looks at the values of either.
struct Begin : torch::autograd::Function<Begin> {
  static at::Tensor forward(AutogradContext* context, const at::Tensor& x, ExchangePtr exchange) {
    context->saved_data["exchange"] = at::IValue::make_capsule(exchange);
    exchange->begin(x);
    return x.detach();
  }
  static variable_list backward(AutogradContext* context, const variable_list& gradients) {
    exchange_of(context).end_backward();
    return {gradients[0], at::Tensor()};
  }
};

struct End : torch::autograd::Function<End> {
  static at::Tensor forward(AutogradContext* context, const at::Tensor& /*begun*/,
                            ExchangePtr exchange) {
    context->saved_data["exchange"] = at::IValue::make_capsule(exchange);
    return exchange->end();
  }
  static variable_list backward(AutogradContext* context, const variable_list& gradients) {
    return {exchange_of(context).begin_backward(gradients[0]), at::Tensor()};
  }
};

at::Tensor begin(const at::Tensor& x, const ExchangePtr& exchange) {
  return Begin::apply(x, exchange);
}
at::Tensor end(const at::Tensor& begun, const ExchangePtr& exchange) {
  return End::apply(begun, exchange);
}

// How rows are cut: each rank's rows into chunks, or all rows into chunks.
class Cut {
 public:
  Cut(std::int64_t rows, const TokenRows& tokens, int chunks)
      : rows_(rows), tokens_(tokens), chunks_(chunks) {}

  ChunkRows chunk(int number) const {
    ChunkRows result{.counts = {}, .rank = tokens_.group().rank()};
    for (int rank = 0; rank < tokens_.group().size(); ++rank) {
      result.counts.push_back(count(rank, number));
    }
    return result;
  }
  // This rank's rows, or all: in the order in which they lie.
  std::vector<std::int64_t> own_sizes() const {
    std::vector<std::int64_t> sizes;
    for (int number = 0; number < chunks_; ++number) {
      const auto [first, last] = even_part(rows_, number, chunks_);
      sizes.push_back(tokens_.sequence() ? count(tokens_.group().rank(), number) : last - first);
    }
    return sizes;
  }
  // Chunks of all rows: where ranks have rows of their own, a chunk has some of each rank's.
  std::vector<at::Tensor> chunks_of_all(const at::Tensor& x) const {
    if (!tokens_.sequence()) return x.split_with_sizes(own_sizes());
    std::vector<std::int64_t> sizes;
    for (int rank = 0; rank < tokens_.group().size(); ++rank) {
      for (int number = 0; number < chunks_; ++number) sizes.push_back(count(rank, number));
    }
    const std::vector<at::Tensor> pieces = x.split_with_sizes(sizes);
    std::vector<at::Tensor> result;
    for (int number = 0; number < chunks_; ++number) {
      std::vector<at::Tensor> rows;
      for (int rank = 0; rank < tokens_.group().size(); ++rank) {
        rows.push_back(pieces[static_cast<std::size_t>(rank * chunks_ + number)]);
      }
      result.push_back(at::cat(rows));
    }
    return result;
  }

 private:
  std::int64_t count(int rank, int number) const {
    const auto [begin, end] = even_part(rows_, rank, tokens_.group().size());
    const auto [first, last] = even_part(end - begin, number, chunks_);
    return last - first;
  }

  std::int64_t rows_;
  const TokenRows& tokens_;
  int chunks_;
};

ExchangePtr leave_exchange(const TokenRows& tokens, const Cut& cut, int number,
                           c10::intrusive_ptr<Gather> freed) {
  if (!tokens.sequence()) return c10::make_intrusive<Sum>(tokens.group());
  return c10::make_intrusive<Scatter>(tokens.group(), cut.chunk(number), std::move(freed));
}

// Rows as x has them, where they are all.
at::Tensor as_in(const at::Tensor& x, const at::Tensor& rows, const TokenRows& tokens) {
  if (tokens.sequence()) return rows;
  std::vector<std::int64_t> shape = x.sizes().vec();
  shape.back() = rows.size(-1);
  return rows.view(shape);
}

}  // namespace

at::Tensor RowChunks::enter_and_leave(const at::Tensor& x, const Rows& f) const {
  const at::Tensor rows = x.reshape({-1, x.size(-1)});
  const Cut cut(tokens_->sequence() ? tokens_->known_rows() : rows.size(0), *tokens_, chunks_);
  const std::vector<at::Tensor> parts = rows.split_with_sizes(cut.own_sizes());
  std::vector<c10::intrusive_ptr<Gather>> gathers(parts.size());
  std::vector<ExchangePtr> enters, leaves;
  std::vector<at::Tensor> begun, computed, left;
  for (std::size_t i = 0; i < parts.size(); ++i) {
    if (tokens_->sequence()) {
      gathers[i] = c10::make_intrusive<Gather>(tokens_->group(), cut.chunk(static_cast<int>(i)));
      enters.emplace_back(gathers[i]);
    } else {
      enters.emplace_back(c10::make_intrusive<Copy>(tokens_->group()));
    }
    begun.push_back(begin(parts[i], enters[i]));
  }
  for (std::size_t i = 0; i < parts.size(); ++i) {
    leaves.push_back(leave_exchange(*tokens_, cut, static_cast<int>(i), gathers[i]));
    computed.push_back(begin(f(end(begun[i], enters[i])), leaves[i]));
    if (gathers[i] && computed[i].requires_grad()) gathers[i]->free_memory();
  }
  for (std::size_t i = 0; i < parts.size(); ++i) {
    left.push_back(end(std::exchange(computed[i], at::Tensor()), leaves[i]));
  }
  return as_in(x, at::cat(left), *tokens_);
}

at::Tensor RowChunks::leave(const at::Tensor& x, const Rows& f) const {
  const at::Tensor rows = x.reshape({-1, x.size(-1)});
  const Cut cut(rows.size(0), *tokens_, chunks_);
  std::vector<ExchangePtr> leaves;
  std::vector<at::Tensor> computed, left;
  for (const at::Tensor& chunk : cut.chunks_of_all(rows)) {
    leaves.push_back(leave_exchange(*tokens_, cut, static_cast<int>(leaves.size()), {}));
    computed.push_back(begin(f(chunk), leaves.back()));
  }
  // What the products before were computed from is freed as after any leave().
  for (std::size_t i = 0; i < leaves.size(); ++i) {
    left.push_back(end(std::exchange(computed[i], at::Tensor()), leaves[i]));
  }
  return as_in(x, tokens_->free_gathered(at::cat(left)), *tokens_);
}

}  // namespace trireme::detail
