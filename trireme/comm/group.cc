// Copyright 2026 The Trireme authors
// SPDX-License-Identifier: Apache-2.0

#include "trireme/comm/group.h"

#include <fmt/format.h>

#include <utility>

#include "trireme/base/error.h"
#include "trireme/comm/group_impl.h"

namespace trireme {
namespace {

void check_buffer(const ConstBuffer& buffer, const char* what) {
  if (buffer.count < 0 || (buffer.data == nullptr && buffer.count > 0)) {
    throw_error<ShapeError>("{}: a buffer of {} elements at {}", what, buffer.count,
                            fmt::ptr(buffer.data));
  }
}

Collective all_reduce_of(const Buffer& data, ReduceOp op) {
  check_buffer(data, "all_reduce");
  const bool integer = data.dtype == DType::kI8 || data.dtype == DType::kU8 ||
                       data.dtype == DType::kI32 || data.dtype == DType::kI64;
  if (op == ReduceOp::kMean && integer) {
    throw_error<ShapeError>("all_reduce: a mean of {} is no {}; sum and divide, or use a float",
                            dtype_name(data.dtype), dtype_name(data.dtype));
  }
  Collective collective;
  collective.signature.kind = CollectiveKind::kAllReduce;
  collective.signature.op = op;
  collective.signature.dtype = data.dtype;
  collective.signature.count = data.count;
  collective.data = data;
  return collective;
}

Collective all_gather_of(const ConstBuffer& input, const Buffer& output, int size) {
  check_buffer(input, "all_gather");
  check_buffer(output, "all_gather");
  if (input.dtype != output.dtype || output.count != input.count * size) {
    throw_error<ShapeError>(
        "all_gather: {} x {} from each of {} ranks do not fill an output of {} x {}", input.count,
        dtype_name(input.dtype), size, output.count, dtype_name(output.dtype));
  }
  Collective collective;
  collective.signature.kind = CollectiveKind::kAllGather;
  collective.signature.dtype = input.dtype;
  collective.signature.count = input.count;
  collective.input = input;
  collective.data = output;
  return collective;
}

Collective broadcast_of(const Buffer& data, int root, int size) {
  check_buffer(data, "broadcast");
  if (root < 0 || root >= size) {
    throw_error<ShapeError>("broadcast: root {} is no rank of a group of {}", root, size);
  }
  Collective collective;
  collective.signature.kind = CollectiveKind::kBroadcast;
  collective.signature.dtype = data.dtype;
  collective.signature.count = data.count;
  collective.signature.root = root;
  collective.data = data;
  return collective;
}

}  // namespace

Work::Work() = default;
Work::Work(std::shared_ptr<State> state) : state_(std::move(state)) {}
Work::Work(Work&&) noexcept = default;
Work& Work::operator=(Work&&) noexcept = default;
Work::~Work() = default;

void Work::wait() {
  if (!state_) return;
  std::unique_lock lock(state_->mutex);
  state_->changed.wait(lock, [&] { return state_->done; });
  if (state_->failure) state_->failure->raise();
}

bool Work::test() {
  if (!state_) return true;
  const std::lock_guard lock(state_->mutex);
  return state_->done;
}

Group::Group(std::unique_ptr<GroupImpl> impl) : impl_(std::move(impl)) {}
Group::~Group() = default;

const std::string& Group::name() const { return impl_->scope().name; }
int Group::rank() const { return impl_->scope().rank; }
int Group::size() const { return impl_->scope().size(); }
std::string_view Group::engine() const { return impl_->engine().name(); }
const std::vector<int>& Group::world_ranks() const { return impl_->scope().world_ranks; }
void Group::set_timeout(std::chrono::milliseconds timeout) { impl_->set_timeout(timeout); }

void Group::all_reduce(Buffer data, ReduceOp op) { impl_->run(all_reduce_of(data, op)); }
Work Group::start_all_reduce(Buffer data, ReduceOp op) {
  return impl_->start(all_reduce_of(data, op));
}

void Group::all_gather(ConstBuffer input, Buffer output) {
  impl_->run(all_gather_of(input, output, size()));
}
Work Group::start_all_gather(ConstBuffer input, Buffer output) {
  return impl_->start(all_gather_of(input, output, size()));
}

void Group::broadcast(Buffer data, int root) { impl_->run(broadcast_of(data, root, size())); }
Work Group::start_broadcast(Buffer data, int root) {
  return impl_->start(broadcast_of(data, root, size()));
}

void Group::barrier() { impl_->run({}); }

std::unique_ptr<Group> Group::split(const std::string& name, const std::vector<int>& ranks) {
  return std::make_unique<Group>(impl_->split(name, ranks));
}

std::int64_t Group::bytes_sent() const { return impl_->engine().bytes_sent(); }
void Group::close() { impl_->close(); }

}  // namespace trireme
