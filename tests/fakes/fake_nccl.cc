// Copyright 2026 The Trireme authors
// SPDX-License-Identifier: Apache-2.0

// NCCL's half of the double: sends and receives that meet by pair and communicator, in the order in
// which they were issued; groups that hold up their stream; communicators that do not block, whose
// first transfer with a peer is under way until the peer's is issued, too.

#include <algorithm>
#include <atomic>
#include <cstring>
#include <map>
#include <memory>
#include <set>
#include <utility>
#include <vector>

#include "tests/fakes/fake_device.h"

namespace fake {
namespace {

constexpr int kSuccess = 0;
constexpr int kInvalidUsage = 5;
constexpr int kInProgress = 7;

struct Comm;

struct Op {
  Comm* comm = nullptr;
  bool receive = false;
  int peer = 0;
  std::byte* data = nullptr;
  std::size_t bytes = 0;
  // Guarded by the clique's mutex.
  bool done = false;
  bool cancelled = false;
};
using Ops = std::vector<std::shared_ptr<Op>>;
using Pair = std::pair<int, int>;  // from, to

// The ranks of one communicator.
struct Clique {
  std::mutex mutex;
  std::condition_variable changed;
  // Guarded by mutex.
  int size = 0;
  std::map<int, Comm*> ranks;
  std::set<std::pair<Pair, bool>> connected;  // by pair, and which end of it
  std::map<std::pair<Pair, bool>, std::deque<std::shared_ptr<Op>>> posted;
};

struct Comm {
  std::shared_ptr<Clique> clique;
  int rank = 0;
  int device = 0;
  Stream* stream = nullptr;  // of its first transfer, and so of all
  std::atomic<bool> busy = false;
  std::atomic<int> groups_under_way = 0;
  std::atomic<bool> aborted = false;
  std::atomic<int> error = 0;
  // Used by one thread at a time.
  bool joined = false;
  bool finalizing = false;
  bool ended = false;
  Ops issuing;  // until both ends of each pair are connected
};

std::mutex registry_mutex;
// Guarded by registry_mutex. Never freed, as the communicators that it leads to.
auto& cliques = *new std::map<std::string, std::shared_ptr<Clique>>;
std::atomic<int> next_id = 0;
std::atomic<bool> stalled[kDevices];
std::atomic<int> aborts = 0;

thread_local int group_depth = 0;
thread_local Ops group_ops;

Pair pair_of(const Op& op) {
  return op.receive ? Pair(op.peer, op.comm->rank) : Pair(op.comm->rank, op.peer);
}

// One thread's use of a communicator.
struct Use {
  Use(Comm* used, const char* call) : comm(used) {
    if (comm->busy.exchange(true)) misuse("two threads in one communicator", 0);
    if (comm->ended) misuse(std::string(call) + " after the communicator's end", 0);
    if (current_device() != comm->device) misuse(std::string(call) + " on another device", 0);
  }
  ~Use() { comm->busy = false; }
  Comm* comm;
};

// Clique's mutex held.
void match(Clique& clique, const Pair& pair) {
  auto& sends = clique.posted[{pair, false}];
  auto& receives = clique.posted[{pair, true}];
  while (!sends.empty() && !receives.empty()) {
    const auto send = sends.front();
    const auto receive = receives.front();
    if (send->cancelled || receive->cancelled) return;
    if (send->bytes != receive->bytes) {
      misuse("a send of " + std::to_string(send->bytes) + " bytes meets a receive of " +
                 std::to_string(receive->bytes),
             0);
      send->comm->error = kInvalidUsage;
      receive->comm->error = kInvalidUsage;
    } else {
      std::memcpy(receive->data, send->data, send->bytes);
    }
    send->done = receive->done = true;
    sends.pop_front();
    receives.pop_front();
  }
}

// On the stream: ends when all transfers have met theirs.
void run_group(Comm* comm, const Ops& ops) {
  Clique& clique = *comm->clique;
  std::unique_lock lock(clique.mutex);
  clique.changed.wait(lock, [&] { return !stalled[comm->device] || comm->aborted; });
  for (const auto& op : ops) {
    if (comm->aborted) op->cancelled = true;
    clique.posted[{pair_of(*op), op->receive}].push_back(op);
    match(clique, pair_of(*op));
  }
  clique.changed.notify_all();
  clique.changed.wait(lock, [&] {
    return comm->aborted || std::all_of(ops.begin(), ops.end(), [](auto& op) { return op->done; });
  });
  for (const auto& op : ops) op->cancelled = !op->done;
  --comm->groups_under_way;
}

int state_of(Comm* comm) {
  if (comm->error != 0) return comm->error;
  Clique& clique = *comm->clique;
  const std::lock_guard lock(clique.mutex);
  if (!comm->joined) {
    comm->joined = static_cast<int>(clique.ranks.size()) == clique.size;
    return kInProgress;
  }
  if (!comm->issuing.empty()) {
    for (const auto& op : comm->issuing) {
      if (!clique.connected.contains({pair_of(*op), !op->receive})) return kInProgress;
    }
    ++comm->groups_under_way;
    comm->stream->put([comm, ops = std::exchange(comm->issuing, {})] { run_group(comm, ops); });
    return kInProgress;
  }
  return comm->finalizing && comm->groups_under_way != 0 ? kInProgress : kSuccess;
}

int transfer(Comm* comm, bool receive, void* data, std::size_t bytes, int dtype, int peer,
             Stream* stream) {
  const Use use(comm, "a transfer");
  if (group_depth == 0) return misuse("a transfer outside of a group", kInvalidUsage);
  if (!comm->joined || !comm->issuing.empty() || comm->finalizing) {
    return misuse("a transfer while the communicator is busy", kInvalidUsage);
  }
  if (!is_device(reinterpret_cast<std::uintptr_t>(data)) || bytes == 0 || dtype != 0) {
    return misuse("a transfer of host memory, or of nothing", kInvalidUsage);
  }
  if (peer < 0 || peer >= comm->clique->size || peer == comm->rank) {
    return misuse("a transfer with nobody", kInvalidUsage);
  }
  if (comm->stream == nullptr) comm->stream = stream;
  if (stream != comm->stream || stream->device() != comm->device) {
    return misuse("a transfer on another stream", kInvalidUsage);
  }
  auto* memory = host_of(reinterpret_cast<std::uintptr_t>(data));
  group_ops.push_back(std::make_shared<Op>(Op{comm, receive, peer, memory, bytes}));
  return kSuccess;
}

}  // namespace
}  // namespace fake

using fake::Comm;
using fake::misuse;

// NOLINTBEGIN(readability-identifier-naming): the names are NVIDIA's.
extern "C" {

struct UniqueId {
  char bytes[128];
};
struct Config {
  std::size_t size;
  unsigned magic;
  unsigned version;
  int blocking;
};

// The device's transfers stand still, or go on.
void trireme_fake_stall(int device, bool stalled) {
  fake::stalled[device] = stalled;
  const std::lock_guard lock(fake::registry_mutex);
  for (const auto& [id, clique] : fake::cliques) {
    const std::lock_guard clique_lock(clique->mutex);
    clique->changed.notify_all();
  }
}
// Communicators that were aborted so far.
int trireme_fake_aborts() { return fake::aborts; }
// An error that NCCL notices by itself, in all communicators of the device.
void trireme_fake_break(int device) {
  const std::lock_guard lock(fake::registry_mutex);
  for (const auto& [id, clique] : fake::cliques) {
    const std::lock_guard clique_lock(clique->mutex);
    for (const auto& [rank, comm] : clique->ranks) {
      if (comm->device == device) comm->error = 6;
    }
  }
}

int ncclGetVersion(int* version) {
  *version = 22809;
  return 0;
}
int ncclGetUniqueId(UniqueId* id) {
  *id = {};
  const std::string text = "\x01\x00\x02id " + std::to_string(fake::next_id++);
  std::memcpy(id->bytes, text.data(), text.size());
  return 0;
}
const char* ncclGetErrorString(int error) {
  return error == 6 ? "remote process exited or there was a network error" : "invalid usage";
}
const char* ncclGetLastError(Comm*) { return "said the double"; }

int ncclCommInitRankConfig(Comm** comm, int size, UniqueId id, int rank, Config* config) {
  if (config->size < 20 || config->magic != 0xcafebeef || config->version < 21400 ||
      config->blocking != 0) {
    return misuse("a communicator with another config", fake::kInvalidUsage);
  }
  if (fake::current_device() < 0) return misuse("a communicator nowhere", fake::kInvalidUsage);
  const std::lock_guard lock(fake::registry_mutex);
  auto& clique = fake::cliques[std::string(id.bytes, sizeof(id.bytes))];
  if (clique == nullptr) clique = std::make_shared<fake::Clique>();
  const std::lock_guard clique_lock(clique->mutex);
  clique->size = size;
  for (const auto& [other, its] : clique->ranks) {
    if (other == rank || its->device == fake::current_device()) {
      return misuse("two ranks on one device", fake::kInvalidUsage);
    }
  }
  *comm = new Comm;  // never freed: what uses it after its end is seen
  (*comm)->clique = clique;
  (*comm)->rank = rank;
  (*comm)->device = fake::current_device();
  clique->ranks[rank] = *comm;
  return fake::kInProgress;
}
int ncclCommGetAsyncError(Comm* comm, int* error) {
  const fake::Use use(comm, "ncclCommGetAsyncError");
  *error = fake::state_of(comm);
  return 0;
}
int ncclCommFinalize(Comm* comm) {
  const fake::Use use(comm, "ncclCommFinalize");
  if (!comm->joined || !comm->issuing.empty()) return misuse("finalized while busy", 5);
  comm->finalizing = true;
  return fake::kInProgress;
}
int ncclCommDestroy(Comm* comm) {
  const fake::Use use(comm, "ncclCommDestroy");
  if (!comm->finalizing || comm->groups_under_way != 0) misuse("destroyed while busy", 0);
  comm->ended = true;
  return 0;
}
int ncclCommAbort(Comm* comm) {
  const fake::Use use(comm, "ncclCommAbort");
  comm->ended = true;
  ++fake::aborts;
  const std::lock_guard lock(comm->clique->mutex);
  comm->aborted = true;
  comm->clique->changed.notify_all();
  return 0;
}

int ncclGroupStart() {
  ++fake::group_depth;
  return 0;
}
int ncclGroupEnd() {
  if (--fake::group_depth != 0) return misuse("groups inside groups", fake::kInvalidUsage);
  fake::Ops ops = std::exchange(fake::group_ops, {});
  if (ops.empty()) return 0;
  Comm* const comm = ops.front()->comm;
  const fake::Use use(comm, "ncclGroupEnd");
  const std::lock_guard lock(comm->clique->mutex);
  for (const auto& op : ops) {
    if (op->comm != comm) return misuse("two communicators in a group", fake::kInvalidUsage);
    comm->clique->connected.insert({fake::pair_of(*op), op->receive});
  }
  comm->issuing = std::move(ops);
  return fake::kInProgress;
}
int ncclSend(const void* data, std::size_t count, int dtype, int peer, Comm* comm,
             fake::Stream* stream) {
  return fake::transfer(comm, false, const_cast<void*>(data), count, dtype, peer, stream);
}
int ncclRecv(void* data, std::size_t count, int dtype, int peer, Comm* comm, fake::Stream* stream) {
  return fake::transfer(comm, true, data, count, dtype, peer, stream);
}
}
// NOLINTEND(readability-identifier-naming)
