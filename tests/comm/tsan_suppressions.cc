// Copyright 2026 The Trireme authors
// SPDX-License-Identifier: Apache-2.0

// What ThreadSanitizer cannot know about code that it did not compile. Without it this file is
// empty.

#if defined(__SANITIZE_THREAD__)

extern "C" const char* __tsan_default_suppressions();  // NOLINT: the sanitizer's name

extern "C" const char* __tsan_default_suppressions() {
  // The destructor of Gloo's buffer waits until its device thread has let go of the buffer, by the
  // reference count of a shared_ptr: atomic operations inside libgloo, which is not instrumented.
  return "race:gloo::transport::tcp::UnboundBuffer::~UnboundBuffer\n"
         "race:std::default_delete<gloo::transport::UnboundBuffer>\n"
         // For the same reason, the memory that the buffer stood for, once the buffer is gone.
         "race:gloo::transport::tcp::Pair::write\n"
         "race:gloo::transport::tcp::Pair::read\n"
         // The same, seen from our side, when the sanitizer has forgotten who wrote: greetings go
         // after the flights that received them.
         "race:trireme::Greetings::~Greetings\n";
}

#endif
