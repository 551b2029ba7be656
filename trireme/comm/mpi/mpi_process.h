// Copyright 2026 The Trireme authors
// SPDX-License-Identifier: Apache-2.0

// MPI is one per process: who initialised it, who may call it, who finalizes it.
//
// All calls that Trireme makes are under one lock, so MPI has to give MPI_THREAD_SERIALIZED only;
// MPI_THREAD_MULTIPLE is asked for, and where it is given the program may call MPI beside us.
//
// Trireme finalizes what it has initialised, when the process exits, because MPI cannot be
// initialised twice: a program may join one world after the other. MPI_Finalize talks to the other
// ranks and knows no deadline, so it is not called once a world of this process has failed or was
// not closed.
#pragma once

#include <mutex>
#include <string>

namespace trireme {

class MpiProcess {
 public:
  // The one of this process. Never destroyed.
  static MpiProcess& instance();

  // Initialises MPI where nobody has. Throws ConfigError when MPI does not give the level of
  // threads that is needed, or was abandoned.
  void start();

  // Hold it around every call.
  std::mutex& mutex() { return mutex_; }

  // mutex() held. From now on nobody calls MPI any more, so that it leaves alone the memory of
  // messages that could neither be ended nor cancelled.
  void abandon() { abandoned_ = true; }
  // mutex() held. False once MPI was abandoned or finalized.
  bool usable() const;
  // In MPI_COMM_WORLD. Takes mutex().
  int rank();

  // A world that uses MPI began, and ended; cleanly: closed, with nothing left under way. Takes
  // mutex().
  void world_began();
  void world_ended(bool cleanly);

 private:
  static void finalize_at_exit();

  std::mutex mutex_;
  // Guarded by mutex_.
  bool abandoned_ = false;
  int worlds_ = 0;  // not ended cleanly
};

// The words of MPI for one of its error codes. MPI's lock held.
std::string mpi_error_text(int code);

}  // namespace trireme
