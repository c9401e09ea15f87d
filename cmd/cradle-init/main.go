// Command cradle-init is the guest's first process.
package main

import "github.com/kraudcloud/kattest/guest"

func main() { guest.Main() }
