// Copyright 2026 The Trireme authors
// SPDX-License-Identifier: Apache-2.0

#include "trireme/comm/group_impl.h"

#include <xxhash.h>

#include <algorithm>
#include <numeric>
#include <utility>

#include "trireme/base/error.h"
#include "trireme/base/log.h"
#include "trireme/comm/mpi/mpi_support.h"
#include "trireme/comm/nccl/nccl_mesh.h"

namespace trireme {
namespace {

// For the network engine's last bytes to be taken by ranks that are slower to leave.
constexpr std::chrono::milliseconds kFlushTime = std::chrono::seconds(2);

std::uint64_t subgroup_id(std::uint64_t parent, const std::string& name,
                          const std::vector<int>& world_ranks) {
  std::string key = fmt::format("{:016x}/{}/", parent, name);
  for (const int rank : world_ranks) key += fmt::format("{},", rank);
  return XXH3_64bits(key.data(), key.size());
}

}  // namespace

void Work::State::finish(std::optional<Failure> outcome) {
  const std::lock_guard lock(mutex);
  failure = std::move(outcome);
  done.store(true, std::memory_order_release);
  changed.notify_all();
}

GroupImpl::GroupImpl(GroupScope scope, std::chrono::milliseconds timeout)
    : scope_(std::move(scope)), carriers_(scope_), timeout_(timeout), self_(scope_) {
  log_debug("group {}: rank {} of {}, engine {}", scope_.name, scope_.rank, scope_.size(),
            engine().name());
}

GroupImpl::~GroupImpl() {
  bool pending = !messengers_.idle();
  {
    const std::lock_guard lock(mutex_);
    pending |= working_ || !tasks_.empty();
  }
  if (pending) {
    fail_world({Failure::Kind::kComm, -1,
                fmt::format("rank {} destroyed group {} with work pending", scope_.world->rank,
                            scope_.name)});
  }
  stop_worker();
}

void GroupImpl::run(Collective collective) {
  prepare(collective);
  run_task({std::move(collective), {}, timeout_, nullptr});
}

Work GroupImpl::start(Collective collective) {
  prepare(collective);
  return start_task({std::move(collective), {}, timeout_, nullptr});
}

void GroupImpl::run_task(Task task) {
  bool idle = true;
  if (worker_.joinable()) {
    const std::lock_guard lock(mutex_);
    idle = !working_ && tasks_.empty();
  }
  if (idle) return execute(task);
  Work(enqueue(std::move(task))).wait();
}

Work GroupImpl::start_task(Task task) {
  if (!worker_.joinable()) worker_ = std::thread([this] { work_off(); });
  return Work(enqueue(std::move(task)));
}

void GroupImpl::run_coalesced(std::span<const Buffer> buffers, const InPlace& make) {
  run_task(coalesced_task(buffers, make));
}

Work GroupImpl::start_coalesced(std::span<const Buffer> buffers, const InPlace& make) {
  return start_task(coalesced_task(buffers, make));
}

GroupImpl::Task GroupImpl::coalesced_task(std::span<const Buffer> buffers, const InPlace& make) {
  std::vector<std::int64_t> counts;
  // Of any address: execute() puts the packed data in its place.
  Buffer all{this, 0};
  if (!buffers.empty()) {
    all.dtype = buffers[0].dtype;
    all.cuda_device = buffers[0].cuda_device;
  }
  for (const Buffer& buffer : buffers) {
    carriers_.check(buffer);
    counts.push_back(buffer.count);
    all.count += buffer.count;
  }
  Task task{make(all), {buffers.begin(), buffers.end()}, timeout_, nullptr};
  task.collective.signature.counts_digest =
      XXH3_64bits(counts.data(), counts.size() * sizeof(std::int64_t)) | 1;
  prepare(task.collective);
  return task;
}

void GroupImpl::prepare(Collective& collective) {
  check_open();
  carriers_.check(collective.input);
  carriers_.check(collective.output);
  collective.signature.sequence = ++sequence_;
}

void GroupImpl::check_open() const {
  scope_.world->latch.throw_if_failed();
  const bool world_left =
      scope_.world->control != nullptr && scope_.world->control->has_left(scope_.world->rank);
  if (closed_ || world_left) throw_error<CommError>("group {} is closed", scope_.name);
}

void GroupImpl::execute(const Task& task) {
  const auto what = [&] { return OperationName(task.collective.signature).text(scope_); };
  const Deadline deadline = Deadline::after(task.timeout);
  guard([&] { carriers_.run(task.collective, task.coalesced, deadline); }, what);
}

// Other ranks may be anywhere inside the operation: there is nothing to go on from.
void GroupImpl::guard(const std::function<void()>& operation,
                      const std::function<std::string()>& what) {
  FailureLatch& latch = scope_.world->latch;
  latch.throw_if_failed();
  try {
    operation();
  } catch (const std::exception& error) {
    Failure failure = Failure::of(error);
    if (dynamic_cast<const CommError*>(&error) == nullptr) {
      failure.message = fmt::format("group {}: rank {} failed in {}: {}", scope_.name,
                                    scope_.world->rank, what(), error.what());
    }
    fail_world(failure);
    latch.throw_if_failed();
  }
}

void GroupImpl::fail_world(const Failure& failure) {
  if (scope_.world->control != nullptr) {
    scope_.world->control->announce(failure);
  } else {
    scope_.world->latch.fail(failure);
  }
}

std::shared_ptr<Work::State> GroupImpl::enqueue(Task task) {
  auto state = std::make_shared<Work::State>();
  task.state = state;
  const std::lock_guard lock(mutex_);
  tasks_.push_back(std::move(task));
  changed_.notify_all();
  return state;
}

void GroupImpl::work_off() {
  std::unique_lock lock(mutex_);
  for (;;) {
    changed_.wait(lock, [&] { return stopping_ || !tasks_.empty(); });
    if (tasks_.empty()) return;
    const Task task = std::move(tasks_.front());
    tasks_.pop_front();
    working_ = true;
    lock.unlock();
    std::optional<Failure> failure;
    try {
      execute(task);
    } catch (const std::exception& error) {
      failure = Failure::of(error);
    }
    lock.lock();
    working_ = false;
    task.state->finish(std::move(failure));
    changed_.notify_all();
  }
}

MessageKey GroupImpl::next_message(Direction direction, int peer, int tag) {
  return {peer, tag, messages_[{direction, peer, tag}]++};
}

std::function<void()> GroupImpl::send_of(const ConstBuffer& data, const MessageKey& key) {
  const Deadline deadline = Deadline::after(timeout_);
  return [=, this] {
    const int device = data.cuda_device;
    if (key.peer == scope_.rank) return self_.send(key, data, carriers_.memory(device));
    carriers_.engine(device).send(key, data, deadline);
  };
}

std::function<void()> GroupImpl::receive_of(const Buffer& data, const MessageKey& key) {
  const Deadline deadline = Deadline::after(timeout_);
  return [=, this] {
    const int device = data.cuda_device;
    if (key.peer == scope_.rank)
      return self_.receive(key, data, carriers_.memory(device), deadline);
    carriers_.engine(device).receive(key, data, deadline);
  };
}

void GroupImpl::run_message(const std::function<void()>& message, const OperationName& name) {
  guard(message, [&] { return name.text(scope_); });
}

Work GroupImpl::start_message(std::function<void()> message, const OperationName& name) {
  auto state = std::make_shared<Work::State>();
  auto failure = std::make_shared<std::optional<Failure>>();
  messengers_.start(
      [this, failure, name, message = std::move(message)] {
        try {
          run_message(message, name);
        } catch (const std::exception& error) {
          *failure = Failure::of(error);
        }
      },
      [state, failure] { state->finish(std::move(*failure)); });
  return Work(state);
}

void GroupImpl::send(const ConstBuffer& data, int to, int tag) {
  check_open();
  carriers_.check(data);
  const MessageKey key = next_message(Direction::kSend, to, tag);
  run_message(send_of(data, key), OperationName(key, true, data.count, data.dtype));
}

Work GroupImpl::start_send(const ConstBuffer& data, int to, int tag) {
  check_open();
  carriers_.check(data);
  const MessageKey key = next_message(Direction::kSend, to, tag);
  return start_message(send_of(data, key), OperationName(key, true, data.count, data.dtype));
}

void GroupImpl::receive(const Buffer& data, int from, int tag) {
  check_open();
  carriers_.check(data);
  const MessageKey key = next_message(Direction::kReceive, from, tag);
  run_message(receive_of(data, key), OperationName(key, false, data.count, data.dtype));
}

Work GroupImpl::start_receive(const Buffer& data, int from, int tag) {
  check_open();
  carriers_.check(data);
  const MessageKey key = next_message(Direction::kReceive, from, tag);
  return start_message(receive_of(data, key), OperationName(key, false, data.count, data.dtype));
}

void GroupImpl::exchange(const ConstBuffer& out, int to, const Buffer& in, int from, int tag) {
  check_open();
  carriers_.check(out);
  carriers_.check(in);
  if (out.cuda_device != in.cuda_device) {
    throw_error<ShapeError>(
        "group {}: send_recv of buffers in different memories (CUDA device {} and {})", scope_.name,
        out.cuda_device, in.cuda_device);
  }
  const MessageKey out_key = next_message(Direction::kSend, to, tag);
  const MessageKey in_key = next_message(Direction::kReceive, from, tag);
  const OperationName name(in_key, false, in.count, in.dtype);
  // A message to oneself never waits for its receiver.
  if (to == scope_.rank || from == scope_.rank) {
    const auto sends = send_of(out, out_key);
    const auto receives = receive_of(in, in_key);
    if (to == scope_.rank) {
      run_message(sends, name);
      return run_message(receives, name);
    }
    run_message(receives, name);
    return run_message(sends, name);
  }
  const Deadline deadline = Deadline::after(timeout_);
  Engine& engine = carriers_.engine(in.cuda_device);
  run_message([&] { engine.exchange(out_key, out, in_key, in, deadline); }, name);
}

void GroupImpl::wait_until_idle() {
  messengers_.wait_until_idle();
  std::unique_lock lock(mutex_);
  changed_.wait(lock, [&] { return !working_ && tasks_.empty(); });
}

void GroupImpl::stop_worker() {
  if (!worker_.joinable()) return;
  {
    const std::lock_guard lock(mutex_);
    stopping_ = true;
    changed_.notify_all();
  }
  worker_.join();
}

std::vector<int> GroupImpl::tell_all(const std::string& topic, int value) {
  check_open();
  if (scope_.size() == 1) return {value};
  ControlPlane& control = *scope_.world->control;
  const auto key = [&](int rank) {
    return fmt::format("{}/{:016x}/{}", topic, scope_.id, scope_.member(rank).rank);
  };
  const Deadline deadline = Deadline::after(timeout_);
  control.put(key(scope_.rank), std::to_string(value));
  std::vector<int> values;
  for (int rank = 0; rank < scope_.size(); ++rank) {
    const std::string what =
        fmt::format("rank {} on {} to say its {} in group {}", scope_.member(rank).rank,
                    scope_.member(rank).host_name, topic, scope_.name);
    values.push_back(std::stoi(control.get(key(rank), deadline, what)));
  }
  return values;
}

std::unique_ptr<GroupImpl> GroupImpl::split(const std::string& name,
                                            const std::vector<int>& ranks) {
  check_open();
  const int size = scope_.size();
  const bool ascending = std::is_sorted(ranks.begin(), ranks.end(), std::less_equal<>());
  const auto own = std::find(ranks.begin(), ranks.end(), scope_.rank);
  if (ranks.empty() || !ascending || own == ranks.end() || ranks.front() < 0 ||
      ranks.back() >= size) {
    throw_error<ConfigError>(
        "group {} cannot be split into {} of {}: ranks must be ascending, below {}, and hold the "
        "caller's, {}",
        scope_.name, name, detail::name_ranks(ranks), size, scope_.rank);
  }
  if (!split_names_.insert(name).second) {
    throw_error<ConfigError>("group {} already has a part named {}", scope_.name, name);
  }
  GroupScope part;
  part.world = scope_.world;
  part.name = name;
  part.rank = static_cast<int>(own - ranks.begin());
  for (const int rank : ranks) {
    part.world_ranks.push_back(scope_.world_ranks[static_cast<std::size_t>(rank)]);
  }
  part.id = subgroup_id(scope_.id, name, part.world_ranks);
  return std::make_unique<GroupImpl>(std::move(part), timeout_);
}

std::unique_ptr<GroupImpl> GroupImpl::duplicate(const std::string& purpose) {
  std::vector<int> all(static_cast<std::size_t>(scope_.size()));
  std::iota(all.begin(), all.end(), 0);
  std::string name = purpose;
  for (int copy = 2; split_names_.contains(name); ++copy)
    name = fmt::format("{}#{}", purpose, copy);
  return split(name, all);
}

void GroupImpl::abandon(const std::string& reason) {
  const ControlPlane* control = scope_.world->control.get();
  if (control == nullptr || closed_ || control->has_left(scope_.world->rank)) return;
  fail_world({Failure::Kind::kComm, -1,
              fmt::format("group {}: rank {} left: {}", scope_.name, scope_.world->rank, reason)});
}

void GroupImpl::close() {
  if (closed_) return;
  wait_until_idle();
  stop_worker();
  closed_ = true;
  // Only the world itself says goodbye; its parts just end.
  if (scope_.id == 0 && scope_.world->control != nullptr) leave_world();
}

// Rank 0 stays until the others have left, because announcements pass through it. A rank whose last
// bytes may still be in a socket stays a little.
void GroupImpl::leave_world() {
  ControlPlane& control = *scope_.world->control;
  control.say_goodbye();
  const Deadline deadline =
      Deadline::after(scope_.world->rank == 0 ? timeout_ : std::min(timeout_, kFlushTime));
  if (scope_.world->mpi != nullptr) {
    leave_mpi(*scope_.world->mpi, deadline);
  } else if (scope_.world->rank == 0 || scope_.world->mesh != nullptr) {
    control.wait_for_others_to_leave(deadline);
  }
  if (scope_.world->nccl != nullptr) scope_.world->nccl->leave(Deadline::after(kFlushTime));
}

}  // namespace trireme
