// Copyright 2026 The Trireme authors
// SPDX-License-Identifier: Apache-2.0

#include "trireme/comm/group_impl.h"

#include <xxhash.h>

#include <algorithm>
#include <utility>

#include "trireme/base/check.h"
#include "trireme/base/error.h"
#include "trireme/base/log.h"

namespace trireme {
namespace {

// For the network engine's last bytes to be taken by ranks that are slower to leave.
constexpr std::chrono::milliseconds kFlushTime = std::chrono::seconds(2);

bool share_a_host(const GroupScope& scope) {
  const auto host = [&](int rank) -> const std::string& {
    return scope.world->members[static_cast<std::size_t>(rank)].host_id;
  };
  return std::all_of(scope.world_ranks.begin(), scope.world_ranks.end(),
                     [&](int rank) { return host(rank) == host(scope.world_ranks[0]); });
}

std::unique_ptr<Engine> choose_engine(const GroupScope& scope) {
  if (scope.size() == 1) return make_self_engine();
  const std::string& asked = scope.world->engine;
  if (asked == "gloo") return make_gloo_engine(scope);
  if (share_a_host(scope)) return make_shm_engine(scope);
  TRIREME_ASSERT(asked == "auto", "shm was asked for and its ranks were found on several hosts");
  return make_gloo_engine(scope);
}

std::uint64_t subgroup_id(std::uint64_t parent, const std::string& name,
                          const std::vector<int>& world_ranks) {
  std::string key = fmt::format("{:016x}/{}/", parent, name);
  for (const int rank : world_ranks) key += fmt::format("{},", rank);
  return XXH3_64bits(key.data(), key.size());
}

}  // namespace

void Work::State::finish(std::optional<Failure> outcome) {
  const std::lock_guard lock(mutex);
  done = true;
  failure = std::move(outcome);
  changed.notify_all();
}

GroupImpl::GroupImpl(GroupScope scope, std::chrono::milliseconds timeout)
    : scope_(std::move(scope)), engine_(choose_engine(scope_)), timeout_(timeout) {
  log_debug("group {}: rank {} of {}, engine {}", scope_.name, scope_.rank, scope_.size(),
            engine_->name());
}

GroupImpl::~GroupImpl() {
  bool pending = false;
  {
    const std::lock_guard lock(mutex_);
    pending = working_ || !tasks_.empty();
  }
  if (pending) {
    scope_.world->latch.fail(
        {Failure::Kind::kComm, -1,
         fmt::format("group {} was destroyed with work pending", scope_.name)});
  }
  stop_worker();
}

void GroupImpl::run(Collective collective) {
  check_open();
  number(collective);
  bool idle = true;
  if (worker_.joinable()) {
    const std::lock_guard lock(mutex_);
    idle = !working_ && tasks_.empty();
  }
  if (idle) return execute(collective, timeout_);
  Work(enqueue(std::move(collective))).wait();
}

Work GroupImpl::start(Collective collective) {
  check_open();
  number(collective);
  if (!worker_.joinable()) worker_ = std::thread([this] { work_off(); });
  return Work(enqueue(std::move(collective)));
}

void GroupImpl::number(Collective& collective) { collective.signature.sequence = ++sequence_; }

void GroupImpl::check_open() const {
  scope_.world->latch.throw_if_failed();
  const bool world_left =
      scope_.world->control != nullptr && scope_.world->control->has_left(scope_.world->rank);
  if (closed_ || world_left) throw_error<CommError>("group {} is closed", scope_.name);
}

// Whatever ends an operation ends the world: its other ranks may be anywhere inside the operation.
void GroupImpl::execute(const Collective& collective, std::chrono::milliseconds timeout) {
  FailureLatch& latch = scope_.world->latch;
  latch.throw_if_failed();
  try {
    engine_->run(collective, Deadline::after(timeout));
  } catch (const std::exception& error) {
    Failure failure = Failure::of(error);
    if (dynamic_cast<const CommError*>(&error) == nullptr) {
      failure.message = fmt::format("group {}: rank {} failed in operation {}, {}: {}", scope_.name,
                                    scope_.world->rank, collective.signature.sequence,
                                    describe(collective.signature), error.what());
    }
    if (scope_.world->control != nullptr) {
      scope_.world->control->announce(failure);
    } else {
      latch.fail(failure);
    }
    latch.throw_if_failed();
  }
}

std::shared_ptr<Work::State> GroupImpl::enqueue(Collective collective) {
  auto state = std::make_shared<Work::State>();
  const std::lock_guard lock(mutex_);
  tasks_.push_back({std::move(collective), timeout_, state});
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
      execute(task.collective, task.timeout);
    } catch (const std::exception& error) {
      failure = Failure::of(error);
    }
    lock.lock();
    working_ = false;
    task.state->finish(std::move(failure));
    changed_.notify_all();
  }
}

void GroupImpl::wait_until_idle() {
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
  if (scope_.world->rank == 0) {
    control.wait_for_others_to_leave(Deadline::after(timeout_));
  } else if (scope_.world->mesh != nullptr) {
    control.wait_for_others_to_leave(Deadline::after(std::min(timeout_, kFlushTime)));
  }
}

}  // namespace trireme
