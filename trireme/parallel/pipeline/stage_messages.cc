// Copyright 2026 The Trireme authors
// SPDX-License-Identifier: Apache-2.0

#include "trireme/parallel/pipeline/stage_messages.h"

#include <ATen/ops/empty.h>
#include <ATen/ops/full.h>
#include <fmt/format.h>
#include <fmt/ranges.h>

#include <algorithm>
#include <chrono>
#include <string>
#include <utility>

#include "trireme/base/check.h"
#include "trireme/base/error.h"
#include "trireme/ops/memory/memory_ledger.h"
#include "trireme/parallel/pipeline/stage.h"
#include "trireme/parallel/tensor_buffer.h"
#include "trireme/plan/verify_schedule.h"

namespace trireme {
namespace {

constexpr std::int64_t kMostDims = 8;
// A header: the number of tensors, then of each its dtype, its number of dims, and these.
constexpr std::int64_t kFormElements = 2 + kMostDims;
constexpr std::int64_t kHeaderElements =
    1 + static_cast<std::int64_t>(kMostActivations) * kFormElements;
constexpr int kKinds = 3;
constexpr std::size_t kTagsOfMessage = kMostActivations + 1;  // the last: the header
constexpr std::size_t kMostSends = 8;                         // under way, of a kind and stage
constexpr std::chrono::milliseconds kSendOn{1};  // how long one that has left may go unnoticed
constexpr auto kMostReceives = static_cast<std::size_t>(plan::VerifyOptions{}.max_receives);

const char* name_of(MessageKind kind) {
  switch (kind) {
    case MessageKind::kActivation:
      return "activations";
    case MessageKind::kGradient:
      return "gradients";
    case MessageKind::kTied:
      return "gradients of the shared matrix";
  }
  return "";
}

// Truth values travel as the bytes that they are.
Buffer bytes_of(const at::Tensor& tensor) {
  if (tensor.scalar_type() != at::kBool) return buffer_of_tensor(tensor);
  return {tensor.data_ptr(), tensor.numel(), DType::kU8};
}

void check_tensors(const MessageKey& key, const std::vector<at::Tensor>& tensors) {
  if (tensors.size() > kMostActivations) {
    throw_error<ShapeError>("stage {} gives {} tensors to its neighbour: at most {}", key.stage,
                            tensors.size(), kMostActivations);
  }
  for (const at::Tensor& tensor : tensors) {
    if (tensor.defined() && (!tensor.is_cpu() || tensor.dim() > kMostDims)) {
      throw_error<ShapeError>(
          "what travels between stages is on the CPU and has at most {} dims: stage {} gives {} "
          "dims on {}",
          kMostDims, key.stage, tensor.dim(), tensor.device().str());
    }
    // Throws for a dtype that cannot travel.
    if (tensor.defined() && tensor.scalar_type() != at::kBool) {
      dtype_of_tensor(tensor.scalar_type());
    }
  }
}

}  // namespace

void StageMessages::begin(int stages, int micro_batches) {
  TRIREME_ASSERT(arrivals_.empty(), "{} messages of another run", arrivals_.size());
  stages_ = stages;
  micro_batches_ = micro_batches;
  sent_.clear();
  received_.clear();
  receives_.clear();
  headers_.clear();
  header_works_.clear();
  handed_over_.clear();
  const std::int64_t tags =
      std::int64_t{kKinds} * stages * micro_batches * static_cast<std::int64_t>(kTagsOfMessage);
  TRIREME_ASSERT(tags < std::int64_t{1} << 31, "{} stages times {} micro-batches", stages,
                 micro_batches);
}

void StageMessages::finish() {
  for (settle(); !all_left(); settle()) {
    if (Work* const open = oldest_send()) {
      holds_sends_back() ? void(open->wait_for(kSendOn)) : open->wait();
    }
  }
}

bool StageMessages::all_left() const {
  return std::ranges::all_of(departures_, [](const auto& line) { return line.second.empty(); });
}

Work* StageMessages::oldest_send() {
  for (auto& [line, departures] : departures_) {
    if (departures.empty()) continue;
    for (Work& work : departures.front().works) {
      if (!work.test()) return &work;
    }
  }
  return nullptr;
}

bool StageMessages::holds_sends_back() const {
  return std::ranges::any_of(departures_,
                             [](const auto& line) { return line.second.size() > kMostSends; });
}

bool StageMessages::Departure::has_left() const {
  return begun && std::ranges::all_of(works, [](const Work& work) { return work.test(); });
}

void StageMessages::send_on(std::deque<Departure>& departures) {
  while (!departures.empty() && departures.front().has_left()) {
    for (Work& work : departures.front().works) work.wait();  // throws what ended it
    departures.pop_front();
  }
  for (std::size_t i = 0; i < std::min(kMostSends, departures.size()); ++i) {
    Departure& departure = departures[i];
    if (std::exchange(departure.begun, true)) continue;
    for (const Outgoing& out : departure.tensors) {
      departure.works.push_back(group_->start_send(bytes_of(out.tensor), departure.to, out.tag));
    }
  }
}

void StageMessages::settle() {
  for (auto& [line, departures] : departures_) send_on(departures);
}

void StageMessages::wait(Work& work) {
  while (holds_sends_back() && !work.wait_for(kSendOn)) settle();
  work.wait();
}

int StageMessages::tag_of(const MessageKey& key, std::size_t tensor) const {
  const int line = static_cast<int>(key.kind) * stages_ + key.stage;
  return (line * micro_batches_ + key.micro_batch) * static_cast<int>(kTagsOfMessage) +
         static_cast<int>(tensor);
}

std::string StageMessages::describe(const Forms& forms) {
  std::vector<std::string> texts;
  for (const Form& form : forms) {
    texts.push_back(form.dtype < 0
                        ? std::string("nothing")
                        : fmt::format("{} [{}]",
                                      c10::toString(static_cast<at::ScalarType>(form.dtype)),
                                      fmt::join(form.sizes, ", ")));
  }
  return fmt::format("{}", fmt::join(texts, ", "));
}

void StageMessages::start_send(const MessageKey& key, const std::vector<at::Tensor>& tensors,
                               int to) {
  check_tensors(key, tensors);
  Forms forms;
  Departure departure{.to = to};
  for (std::size_t i = 0; i < tensors.size(); ++i) {
    const at::Tensor& tensor = tensors[i];
    forms.emplace_back();
    if (!tensor.defined()) continue;
    forms.back() = {static_cast<std::int64_t>(tensor.scalar_type()), tensor.sizes().vec()};
    departure.tensors.push_back({tensor.detach().contiguous(), tag_of(key, i)});
  }
  const auto [known, is_first] = sent_.emplace(Line{key.kind, key.stage}, forms);
  if (known->second != forms) {
    throw_error<ShapeError>(
        "stage {} sends {} of {} for micro-batch {}, and of {} for the first of the step: all "
        "micro-batches of a step have the same shapes",
        key.stage, name_of(key.kind), describe(forms), key.micro_batch, describe(known->second));
  }
  if (is_first) {
    const at::Tensor header = at::full({kHeaderElements}, -1, at::kLong);
    auto* out = header.data_ptr<std::int64_t>();
    *out++ = static_cast<std::int64_t>(forms.size());
    for (const Form& form : forms) {
      out[0] = form.dtype;
      out[1] = static_cast<std::int64_t>(form.sizes.size());
      std::copy(form.sizes.begin(), form.sizes.end(), out + 2);
      out += kFormElements;
    }
    departure.tensors.insert(departure.tensors.begin(), {header, tag_of(key, kTagsOfMessage - 1)});
  }
  std::deque<Departure>& departures = departures_[{key.kind, key.stage}];
  departures.push_back(std::move(departure));
  send_on(departures);
}

void StageMessages::start_receive(const MessageKey& key, int from) {
  if (receives_.size() == kMostReceives) {
    const auto earlier = arrivals_.find(receives_.front());
    if (earlier != arrivals_.end()) wait_for(earlier->first, earlier->second);
    receives_.pop_front();
  }
  receives_.push_back(key);
  Arrival& arrival = arrivals_[key];
  arrival.from = from;
  const Line line{key.kind, key.stage};
  if (const auto known = received_.find(line); known != received_.end()) {
    return start(key, arrival, known->second);
  }
  if (headers_.contains(line)) return;  // this one's forms come with the first
  const at::Tensor header = at::empty({kHeaderElements}, at::kLong);
  headers_[line] = header;
  header_works_[line] =
      group_->start_recv(buffer_of_tensor(header), from, tag_of(key, kTagsOfMessage - 1));
}

void StageMessages::start(const MessageKey& key, Arrival& arrival, const Forms& forms) {
  const MemoryScope scope(MemoryCategory::kActivations);
  arrival.started = true;
  for (std::size_t i = 0; i < forms.size(); ++i) {
    if (forms[i].dtype < 0) {
      arrival.tensors.emplace_back();
      continue;
    }
    arrival.tensors.push_back(at::empty(
        forms[i].sizes, at::TensorOptions().dtype(static_cast<at::ScalarType>(forms[i].dtype))));
    arrival.works.push_back(
        group_->start_recv(bytes_of(arrival.tensors.back()), arrival.from, tag_of(key, i)));
  }
}

void StageMessages::read_header(const Line& line) {
  wait(header_works_.at(line));
  const auto* in = headers_.at(line).data_ptr<std::int64_t>();
  Forms forms(static_cast<std::size_t>(*in++));
  for (Form& form : forms) {
    form.dtype = in[0];
    if (form.dtype >= 0) form.sizes.assign(in + 2, in + 2 + in[1]);
    in += kFormElements;
  }
  received_.emplace(line, std::move(forms));
}

// All that were asked for before their forms were known.
void StageMessages::start_waiting(const Line& line) {
  if (!received_.contains(line)) read_header(line);
  for (auto& [key, arrival] : arrivals_) {
    if (!arrival.started && Line{key.kind, key.stage} == line) {
      start(key, arrival, received_.at(line));
    }
  }
}

void StageMessages::wait_for(const MessageKey& key, Arrival& arrival) {
  if (!arrival.started) start_waiting({key.kind, key.stage});
  for (Work& work : arrival.works) wait(work);
}

std::vector<at::Tensor> StageMessages::receive(const MessageKey& key) {
  if (const auto handed = handed_over_.find(key); handed != handed_over_.end()) {
    std::vector<at::Tensor> tensors = std::move(handed->second);
    handed_over_.erase(handed);
    return tensors;
  }
  const auto found = arrivals_.find(key);
  TRIREME_ASSERT(found != arrivals_.end(), "{} of stage {}, micro-batch {}, were not asked for",
                 name_of(key.kind), key.stage, key.micro_batch);
  wait_for(key, found->second);
  std::vector<at::Tensor> tensors = std::move(found->second.tensors);
  arrivals_.erase(found);
  return tensors;
}

void StageMessages::hand_over(const MessageKey& key, std::vector<at::Tensor> tensors) {
  for (at::Tensor& tensor : tensors) {
    if (tensor.defined()) tensor = tensor.detach();
  }
  handed_over_.emplace(key, std::move(tensors));
}

}  // namespace trireme
