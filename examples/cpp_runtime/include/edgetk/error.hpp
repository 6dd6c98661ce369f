/// The one exception of the runner. Texts follow one pattern: "<who>: <what must hold>, got <value>; <what to do>".
#pragma once

#include <stdexcept>
#include <string>

namespace edgetk {

struct Error : std::runtime_error {
  using std::runtime_error::runtime_error;
};

}  // namespace edgetk
