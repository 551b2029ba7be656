// Copyright 2026 The Trireme authors
// SPDX-License-Identifier: Apache-2.0

#include "trireme/comm/mpi/mpi_channel.h"

#include <mpi.h>

#include <algorithm>
#include <mutex>
#include <thread>
#include <utility>
#include <vector>

#include "trireme/base/check.h"
#include "trireme/base/error.h"
#include "trireme/comm/mpi/mpi_process.h"

namespace trireme {
namespace {

// Between looks at whether all ranks have duplicated the communicator.
constexpr std::chrono::milliseconds kMeetingPause{1};

void check(int code, const char* what) {
  if (code == MPI_SUCCESS) return;
  throw_error<CommError>("MPI cannot {}: {}", what, mpi_error_text(code));
}

}  // namespace

struct MpiChannel::State {
  MPI_Comm comm = MPI_COMM_NULL;
  int rank = 0;
  int size = 0;
  int largest_tag = 32767;  // what MPI promises at least
  // Messages under way, and beside each whose it is.
  std::vector<MPI_Request> requests;
  std::vector<std::shared_ptr<Owner>> owners;
  std::vector<bool> receives;
  // Used by poll() only.
  std::vector<int> indices;
  std::vector<MPI_Status> statuses;

  void add(MPI_Request request, std::shared_ptr<Owner> owner, bool receives_it) {
    requests.push_back(request);
    owners.push_back(std::move(owner));
    receives.push_back(receives_it);
  }
  Completion completion_of(std::size_t index, MPI_Status& status, bool failed) const {
    Completion completion;
    int flag = 0;
    MPI_Test_cancelled(&status, &flag);
    completion.cancelled = flag != 0;
    if (failed && status.MPI_ERROR != MPI_SUCCESS && !completion.cancelled) {
      completion.error = mpi_error_text(status.MPI_ERROR);
    }
    if (!receives[index] || completion.cancelled || !completion.error.empty()) return completion;
    int bytes = 0;
    MPI_Get_count(&status, MPI_BYTE, &bytes);
    completion.bytes = static_cast<std::size_t>(bytes);
    completion.source = status.MPI_SOURCE;
    return completion;
  }
  void forget_completed() {
    std::size_t kept = 0;
    for (std::size_t i = 0; i < requests.size(); ++i) {
      if (requests[i] == MPI_REQUEST_NULL) continue;
      requests[kept] = requests[i];
      receives[kept] = receives[i];
      if (kept != i) owners[kept] = std::move(owners[i]);
      ++kept;
    }
    requests.resize(kept);
    owners.resize(kept);
    receives.resize(kept);
  }
};

MpiChannel::MpiChannel(const FailureLatch& latch, const Deadline& deadline)
    : state_(std::make_unique<State>()) {
  std::unique_lock lock(MpiProcess::instance().mutex());
  MPI_Request request = MPI_REQUEST_NULL;
  check(MPI_Comm_idup(MPI_COMM_WORLD, &state_->comm, &request), "duplicate MPI_COMM_WORLD");
  for (int done = 0;;) {
    check(MPI_Test(&request, &done, MPI_STATUS_IGNORE), "duplicate MPI_COMM_WORLD");
    if (done != 0) break;
    const bool late = deadline.expired();
    if (late || latch.failed()) {
      // The duplicate may still come, to a place that must be there.
      static_cast<void>(state_.release());
      MpiProcess::instance().abandon();
    }
    latch.throw_if_failed();
    if (late) {
      throw_error<TimeoutError>(
          "MPI did not make a communicator of all ranks in time; were all started by one mpirun?");
    }
    lock.unlock();
    std::this_thread::sleep_for(kMeetingPause);
    lock.lock();
  }
  check(MPI_Comm_set_errhandler(state_->comm, MPI_ERRORS_RETURN), "set an error handler");
  check(MPI_Comm_rank(state_->comm, &state_->rank), "tell its rank");
  check(MPI_Comm_size(state_->comm, &state_->size), "tell its size");
  int* largest = nullptr;
  int found = 0;
  check(MPI_Comm_get_attr(state_->comm, MPI_TAG_UB, &largest, &found), "tell its largest tag");
  if (found != 0) state_->largest_tag = *largest;
}

MpiChannel::~MpiChannel() {
  // What is still under way keeps its owners, whose memory MPI may touch: it stays for good.
  if (!state_->requests.empty()) static_cast<void>(state_.release());
}

int MpiChannel::rank() const { return state_->rank; }
int MpiChannel::size() const { return state_->size; }
int MpiChannel::largest_tag() const { return state_->largest_tag; }

void MpiChannel::send(std::shared_ptr<Owner> owner, int to, int tag, const void* data,
                      std::size_t bytes, bool synchronous) {
  TRIREME_ASSERT(bytes <= kMostBytes, "a message of {} bytes", bytes);
  MPI_Request request = MPI_REQUEST_NULL;
  const auto start = synchronous ? MPI_Issend : MPI_Isend;
  check(start(data, static_cast<int>(bytes), MPI_BYTE, to, tag, state_->comm, &request), "send");
  state_->add(request, std::move(owner), false);
}

void MpiChannel::receive(std::shared_ptr<Owner> owner, int from, int tag, void* data,
                         std::size_t bytes) {
  TRIREME_ASSERT(bytes <= kMostBytes, "a message of {} bytes", bytes);
  MPI_Request request = MPI_REQUEST_NULL;
  check(MPI_Irecv(data, static_cast<int>(bytes), MPI_BYTE,
                  from == kAnySource ? MPI_ANY_SOURCE : from, tag, state_->comm, &request),
        "receive");
  state_->add(request, std::move(owner), true);
}

void MpiChannel::cancel(const Owner& owner) {
  for (std::size_t i = 0; i < state_->requests.size(); ++i) {
    if (state_->owners[i].get() == &owner && state_->receives[i]) MPI_Cancel(&state_->requests[i]);
  }
}

bool MpiChannel::poll() {
  State& state = *state_;
  if (state.requests.empty()) return false;
  state.indices.resize(state.requests.size());
  state.statuses.resize(state.requests.size());
  int count = 0;
  const int code = MPI_Testsome(static_cast<int>(state.requests.size()), state.requests.data(),
                                &count, state.indices.data(), state.statuses.data());
  if (code != MPI_SUCCESS && code != MPI_ERR_IN_STATUS) check(code, "test its messages");
  if (count == 0 || count == MPI_UNDEFINED) return false;
  std::vector<std::pair<std::shared_ptr<Owner>, Completion>> completions;
  completions.reserve(static_cast<std::size_t>(count));
  for (int i = 0; i < count; ++i) {
    const auto at = static_cast<std::size_t>(i);
    const auto index = static_cast<std::size_t>(state.indices[at]);
    completions.emplace_back(state.owners[index], state.completion_of(index, state.statuses[at],
                                                                      code == MPI_ERR_IN_STATUS));
    state.requests[index] = MPI_REQUEST_NULL;
  }
  state.forget_completed();
  for (auto& [owner, completion] : completions) owner->complete(completion);
  return true;
}

std::size_t MpiChannel::under_way() const { return state_->requests.size(); }

std::size_t MpiChannel::under_way(const Owner& owner) const {
  return static_cast<std::size_t>(
      std::count_if(state_->owners.begin(), state_->owners.end(),
                    [&](const auto& one) { return one.get() == &owner; }));
}

}  // namespace trireme
