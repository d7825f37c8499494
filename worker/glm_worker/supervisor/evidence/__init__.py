"""What happened to processes and generations, and whose fault it was. Pure: nothing here touches a process."""
