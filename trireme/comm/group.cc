// Copyright 2026 The Trireme authors
// SPDX-License-Identifier: Apache-2.0

#include "trireme/comm/group.h"

#include <utility>

#include "trireme/base/error.h"
#include "trireme/comm/group_arguments.h"
#include "trireme/comm/group_impl.h"
#include "trireme/comm/hierarchy/host_map.h"
#include "trireme/topology/mesh.h"

namespace trireme {
namespace {

detail::Caller caller_of(const GroupImpl& impl) { return {impl.scope().rank, impl.scope().size()}; }

// What a coalesced operation does to all of its buffers as one.
GroupImpl::InPlace all_reduce_by(std::span<const Buffer> data, ReduceOp op) {
  detail::check_coalesced("all_reduce", data);
  return [op](const Buffer& all) { return detail::all_reduce_of(all, op); };
}
GroupImpl::InPlace broadcast_by(const GroupImpl& impl, std::span<const Buffer> data, int root) {
  detail::check_coalesced("broadcast", data);
  return [caller = caller_of(impl), root](const Buffer& all) {
    return detail::broadcast_of(caller, all, root);
  };
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
  state_->changed.wait(lock, [&] { return state_->done.load(); });
  if (state_->failure) state_->failure->raise();
}

bool Work::wait_for(std::chrono::milliseconds time) {
  if (!state_) return true;
  std::unique_lock lock(state_->mutex);
  if (!state_->changed.wait_until(lock, Deadline::after(time).time_point(),
                                  [&] { return state_->done.load(); })) {
    return false;
  }
  if (state_->failure) state_->failure->raise();
  return true;
}

bool Work::test() const { return !state_ || state_->done.load(std::memory_order_acquire); }

std::exception_ptr Work::error() const {
  if (!test() || !state_) return nullptr;
  const std::lock_guard lock(state_->mutex);
  if (!state_->failure) return nullptr;
  try {
    state_->failure->raise();
  } catch (...) {
    return std::current_exception();
  }
}

Group::Group(std::unique_ptr<GroupImpl> impl) : impl_(std::move(impl)) {}
Group::~Group() = default;

const std::string& Group::name() const { return impl_->scope().name; }
int Group::rank() const { return impl_->scope().rank; }
int Group::size() const { return impl_->scope().size(); }
std::string_view Group::engine() const { return impl_->engine().name(); }
const std::vector<int>& Group::world_ranks() const { return impl_->scope().world_ranks; }
std::vector<int> Group::hosts() const {
  const HostMap map(impl_->scope());
  std::vector<int> result;
  for (int rank = 0; rank < size(); ++rank) result.push_back(map.host_of(rank));
  return result;
}
void Group::set_timeout(std::chrono::milliseconds timeout) { impl_->set_timeout(timeout); }

SharedBuffer Group::allocate_shared(std::size_t bytes) {
  return impl_->carriers().allocate_shared(bytes);
}

void Group::all_reduce(Buffer data, ReduceOp op) { impl_->run(detail::all_reduce_of(data, op)); }
Work Group::start_all_reduce(Buffer data, ReduceOp op) {
  return impl_->start(detail::all_reduce_of(data, op));
}
void Group::all_reduce(std::span<const Buffer> data, ReduceOp op) {
  impl_->run_coalesced(data, all_reduce_by(data, op));
}
Work Group::start_all_reduce(std::span<const Buffer> data, ReduceOp op) {
  return impl_->start_coalesced(data, all_reduce_by(data, op));
}

void Group::reduce_scatter(ConstBuffer input, Buffer output, ReduceOp op, Counts counts) {
  impl_->run(detail::reduce_scatter_of(caller_of(*impl_), input, output, op, counts));
}
Work Group::start_reduce_scatter(ConstBuffer input, Buffer output, ReduceOp op, Counts counts) {
  return impl_->start(detail::reduce_scatter_of(caller_of(*impl_), input, output, op, counts));
}

void Group::all_gather(ConstBuffer input, Buffer output, Counts counts) {
  impl_->run(detail::all_gather_of(caller_of(*impl_), input, output, counts));
}
Work Group::start_all_gather(ConstBuffer input, Buffer output, Counts counts) {
  return impl_->start(detail::all_gather_of(caller_of(*impl_), input, output, counts));
}

void Group::broadcast(Buffer data, int root) {
  impl_->run(detail::broadcast_of(caller_of(*impl_), data, root));
}
Work Group::start_broadcast(Buffer data, int root) {
  return impl_->start(detail::broadcast_of(caller_of(*impl_), data, root));
}
void Group::broadcast(std::span<const Buffer> data, int root) {
  impl_->run_coalesced(data, broadcast_by(*impl_, data, root));
}
Work Group::start_broadcast(std::span<const Buffer> data, int root) {
  return impl_->start_coalesced(data, broadcast_by(*impl_, data, root));
}

void Group::reduce(Buffer data, int root, ReduceOp op) {
  impl_->run(detail::reduce_of(caller_of(*impl_), data, root, op));
}
Work Group::start_reduce(Buffer data, int root, ReduceOp op) {
  return impl_->start(detail::reduce_of(caller_of(*impl_), data, root, op));
}

void Group::gather(ConstBuffer input, Buffer output, int root, Counts counts) {
  impl_->run(detail::gather_of(caller_of(*impl_), input, output, root, counts));
}
Work Group::start_gather(ConstBuffer input, Buffer output, int root, Counts counts) {
  return impl_->start(detail::gather_of(caller_of(*impl_), input, output, root, counts));
}

void Group::scatter(ConstBuffer input, Buffer output, int root, Counts counts) {
  impl_->run(detail::scatter_of(caller_of(*impl_), input, output, root, counts));
}
Work Group::start_scatter(ConstBuffer input, Buffer output, int root, Counts counts) {
  return impl_->start(detail::scatter_of(caller_of(*impl_), input, output, root, counts));
}

void Group::all_to_all(ConstBuffer input, Buffer output) {
  impl_->run(detail::all_to_all_of(caller_of(*impl_), input, output));
}
Work Group::start_all_to_all(ConstBuffer input, Buffer output) {
  return impl_->start(detail::all_to_all_of(caller_of(*impl_), input, output));
}
void Group::all_to_all(ConstBuffer input, Buffer output, Counts send_counts,
                       Counts receive_counts) {
  impl_->run(detail::all_to_all_of(caller_of(*impl_), input, output, send_counts, receive_counts));
}
Work Group::start_all_to_all(ConstBuffer input, Buffer output, Counts send_counts,
                             Counts receive_counts) {
  return impl_->start(
      detail::all_to_all_of(caller_of(*impl_), input, output, send_counts, receive_counts));
}

void Group::barrier() { impl_->run(detail::barrier_of()); }
Work Group::start_barrier() { return impl_->start(detail::barrier_of()); }

void Group::send(ConstBuffer data, int to, int tag) {
  detail::check_message(caller_of(*impl_), "send", data, to, tag);
  impl_->send(data, to, tag);
}
Work Group::start_send(ConstBuffer data, int to, int tag) {
  detail::check_message(caller_of(*impl_), "send", data, to, tag);
  return impl_->start_send(data, to, tag);
}
void Group::recv(Buffer data, int from, int tag) {
  detail::check_message(caller_of(*impl_), "recv", data, from, tag);
  impl_->receive(data, from, tag);
}
Work Group::start_recv(Buffer data, int from, int tag) {
  detail::check_message(caller_of(*impl_), "recv", data, from, tag);
  return impl_->start_receive(data, from, tag);
}
void Group::send_recv(ConstBuffer out, int to, Buffer in, int from, int tag) {
  detail::check_message(caller_of(*impl_), "send_recv", out, to, tag);
  detail::check_message(caller_of(*impl_), "send_recv", in, from, tag);
  impl_->exchange(out, to, in, from, tag);
}

std::unique_ptr<Group> Group::split(const std::string& name, const std::vector<int>& ranks) {
  return std::make_unique<Group>(impl_->split(name, ranks));
}

std::unique_ptr<Group> Group::duplicate(const std::string& purpose) {
  return std::make_unique<Group>(impl_->duplicate(purpose));
}

std::unique_ptr<Group> Group::split_by_color(const std::string& name, int color) {
  const std::vector<int> colors = impl_->tell_all("color/" + name, color);
  if (color < 0) return nullptr;
  std::vector<int> ranks;
  for (int rank = 0; rank < size(); ++rank) {
    if (colors[static_cast<std::size_t>(rank)] == color) ranks.push_back(rank);
  }
  return split(name + "/" + std::to_string(color), ranks);
}

std::unique_ptr<Group> Group::split(const Mesh& mesh, std::string_view axis) {
  return split(mesh, std::vector<std::string>{std::string(axis)});
}

std::unique_ptr<Group> Group::split(const Mesh& mesh, const std::vector<std::string>& axes) {
  if (mesh.size() != size()) {
    throw_error<ConfigError>("group {} of {} ranks is no mesh of {} ranks ({})", name(), size(),
                             mesh.size(), mesh.to_string());
  }
  std::string joined;
  for (const std::string& axis : axes) joined += (joined.empty() ? "" : "+") + axis;
  return split(joined, mesh.group_ranks(rank(), axes));
}

std::int64_t Group::bytes_sent() const { return impl_->carriers().bytes_sent(); }
std::int64_t Group::bytes_sent_between_hosts() const {
  return impl_->carriers().bytes_sent_between_hosts();
}
void Group::abandon(const std::string& reason) { impl_->abandon(reason); }
void Group::close() { impl_->close(); }

}  // namespace trireme
