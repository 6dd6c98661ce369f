# Defines the target edgetk_onnxruntime: how programs of this project come to ONNX Runtime. The first of these that there is:
#
#   EDGETK_ORT_LIBRARY  a library file, loaded when the program starts (any version from 1.16 on may take its place later)
#   ONNXRUNTIME_ROOT    a folder with lib/ (and include/, if it is there), as the release archives have them: linked
#   a CMake package     onnxruntimeConfig.cmake, as system packages, vcpkg and conan bring it: linked; EDGETK_ORT_CONFIG=OFF
#                       leaves it out
#   the Python package  the library inside onnxruntime of python3: loaded when the program starts
#   nothing             libonnxruntime.so.1 is looked for when the program starts, or named by the variable EDGETK_ORT_LIBRARY
#
# A linked program needs the version that it was linked with, or a newer one (its symbols carry the version); a loaded one does
# not. Headers are used where they lie beside what was found; none are needed.

set(ONNXRUNTIME_ROOT "$ENV{ONNXRUNTIME_ROOT}" CACHE PATH "folder of ONNX Runtime with lib/ and maybe include/")
set(EDGETK_ORT_LIBRARY "" CACHE FILEPATH "ONNX Runtime's library, to be loaded when the program starts")
option(EDGETK_ORT_CONFIG "use ONNX Runtime's CMake package where there is one" ON)

add_library(edgetk_onnxruntime INTERFACE)
target_link_libraries(edgetk_onnxruntime INTERFACE ${CMAKE_DL_LIBS})

function(edgetk_use_loaded library how)
  target_compile_definitions(edgetk_onnxruntime INTERFACE EDGETK_ORT_DEFAULT="${library}")
  message(STATUS "ONNX Runtime: ${library} (${how}), loaded when the program starts")
endfunction()

# The header may lie in one of several folders, by how the runtime was packed.
function(edgetk_use_headers)
  find_path(edgetk_ort_headers onnxruntime_c_api.h PATHS ${ARGN}
            PATH_SUFFIXES onnxruntime onnxruntime/core/session core/session NO_DEFAULT_PATH NO_CACHE NO_CMAKE_FIND_ROOT_PATH)
  if(edgetk_ort_headers)
    target_include_directories(edgetk_onnxruntime SYSTEM INTERFACE "${edgetk_ort_headers}")
    message(STATUS "ONNX Runtime: its header in ${edgetk_ort_headers}")
  endif()
endfunction()

# A package's files may name folders that are not there (Linux archives 1.19 to 1.23 did): then it is passed over.
function(edgetk_use_package found)
  set(${found} OFF PARENT_SCOPE)
  if(NOT EDGETK_ORT_CONFIG)
    return()
  endif()
  find_package(onnxruntime CONFIG QUIET)
  if(NOT TARGET onnxruntime::onnxruntime)
    return()
  endif()
  get_target_property(folders onnxruntime::onnxruntime INTERFACE_INCLUDE_DIRECTORIES)
  foreach(folder IN LISTS folders)
    if(NOT folder MATCHES "\\$<" AND folder AND NOT EXISTS "${folder}")
      message(STATUS "ONNX Runtime: the CMake package in ${onnxruntime_DIR} names ${folder}, which is not there; passed over")
      return()
    endif()
  endforeach()
  edgetk_use_headers(${folders})
  target_link_libraries(edgetk_onnxruntime INTERFACE onnxruntime::onnxruntime)
  target_compile_definitions(edgetk_onnxruntime INTERFACE EDGETK_ORT_LINKED)
  message(STATUS "ONNX Runtime: the CMake package in ${onnxruntime_DIR}, linked")
  set(${found} ON PARENT_SCOPE)
endfunction()

# The wheel brings the library without headers, CMake package or the plain file name.
function(edgetk_python_library out)
  set(${out} "" PARENT_SCOPE)
  if(CMAKE_CROSSCOMPILING)
    return()
  endif()
  find_package(Python3 COMPONENTS Interpreter QUIET)
  if(Python3_FOUND)
    # found without importing it, which would take a second
    set(code "import glob, importlib.util"
             "spec = importlib.util.find_spec('onnxruntime')"
             "folder = spec.submodule_search_locations[0] + '/capi/' if spec else ''"
             "found = [f for end in ('so.*', '*.dylib') for f in glob.glob(folder + 'libonnxruntime.' + end) if spec]"
             "print(max(found, default=''))")
    list(JOIN code "\n" code)
    execute_process(COMMAND "${Python3_EXECUTABLE}" -c "${code}" OUTPUT_VARIABLE library
                    OUTPUT_STRIP_TRAILING_WHITESPACE ERROR_QUIET)
    set(${out} "${library}" PARENT_SCOPE)
  endif()
endfunction()

function(edgetk_find_onnxruntime)
  if(EDGETK_ORT_LIBRARY)
    if(NOT CMAKE_CROSSCOMPILING AND NOT EXISTS "${EDGETK_ORT_LIBRARY}")
      message(FATAL_ERROR "EDGETK_ORT_LIBRARY: must be a library file, got ${EDGETK_ORT_LIBRARY}; correct the path")
    endif()
    edgetk_use_loaded("${EDGETK_ORT_LIBRARY}" "EDGETK_ORT_LIBRARY")
    return()
  endif()
  if(ONNXRUNTIME_ROOT)
    find_library(edgetk_ort_linked NAMES onnxruntime libonnxruntime.so.1 PATHS "${ONNXRUNTIME_ROOT}"
                 PATH_SUFFIXES lib lib64 . NO_DEFAULT_PATH NO_CACHE NO_CMAKE_FIND_ROOT_PATH)
    if(NOT edgetk_ort_linked)
      message(FATAL_ERROR "ONNXRUNTIME_ROOT: must hold lib/libonnxruntime.so, got ${ONNXRUNTIME_ROOT} without it; "
                          "correct the path")
    endif()
    edgetk_use_headers("${ONNXRUNTIME_ROOT}/include")
    target_link_libraries(edgetk_onnxruntime INTERFACE "${edgetk_ort_linked}")
    target_compile_definitions(edgetk_onnxruntime INTERFACE EDGETK_ORT_LINKED)
    message(STATUS "ONNX Runtime: ${edgetk_ort_linked} (ONNXRUNTIME_ROOT), linked")
    return()
  endif()
  edgetk_use_package(package)
  if(package)
    return()
  endif()
  edgetk_python_library(library)
  if(library)
    edgetk_use_loaded("${library}" "the Python package")
  else()
    message(STATUS "ONNX Runtime: not found; name its library with -DEDGETK_ORT_LIBRARY=FILE, or with the environment variable of "
                   "that name when the program runs, or a Python that has it with -DPython3_EXECUTABLE=FILE")
  endif()
endfunction()

edgetk_find_onnxruntime()
